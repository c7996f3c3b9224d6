from .comparison import (
    ComparisonResult as ComparisonResult,
    compare as compare,
    compare_folder as compare_folder,
)
from .store import (
    Store as Store,
)
from .train.deep.weights import (
    load_model as load_model,
)
from .trial import (
    Trial as Trial,
    seed as seed,
)
