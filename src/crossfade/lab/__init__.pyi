from .comparison import (
    compare as compare,
    compare_folder as compare_folder,
)
from .nets import (
    load_model as load_model,
)
from .result import (
    ComparisonResult as ComparisonResult,
)
from .store import (
    Store as Store,
)
from .trial import (
    Trial as Trial,
    seed as seed,
)
