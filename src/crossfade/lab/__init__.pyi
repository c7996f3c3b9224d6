from .comparison import (
    compare as compare,
    compare_folder as compare_folder,
)
from .result import (
    ComparisonResult as ComparisonResult,
)
from .store import (
    Store as Store,
)
from .train.deep.network import (
    load_model as load_model,
)
from .trial import (
    Trial as Trial,
    seed as seed,
)
