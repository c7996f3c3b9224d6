from .analysis import (
    Analysis as Analysis,
    analyze as analyze,
)
from .compare import (
    Comparison as Comparison,
    Row as Row,
    compare_methods as compare_methods,
)
from .drawing import (
    new_figure as new_figure,
    save_svg as save_svg,
    to_svg as to_svg,
)
from .evidence import (
    AcrossComparison as AcrossComparison,
    PairedComparison as PairedComparison,
    compare_datasets as compare_datasets,
    compare_repeats as compare_repeats,
)
from .figures import (
    critical_difference_diagram as critical_difference_diagram,
    paired_difference_plot as paired_difference_plot,
    performance_plot as performance_plot,
    sign_plot as sign_plot,
)
from .items import (
    ItemTest as ItemTest,
    RowTest as RowTest,
    compare_items as compare_items,
    mcnemar as mcnemar,
)
from .means import (
    Equivalence as Equivalence,
    Interval as Interval,
    MeanTest as MeanTest,
    bootstrap_interval as bootstrap_interval,
    corrected_resampled_t as corrected_resampled_t,
    detectable_difference as detectable_difference,
    equivalence_of_mean as equivalence_of_mean,
    equivalence_over_datasets as equivalence_over_datasets,
    mean_interval as mean_interval,
    out_of_fold_t as out_of_fold_t,
    paired_t as paired_t,
)
from .ranking import (
    MethodSummary as MethodSummary,
    Profile as Profile,
    WinTieLoss as WinTieLoss,
    performance_profile as performance_profile,
    rank_matrix as rank_matrix,
    summarize as summarize,
    summarize_repeats as summarize_repeats,
    win_tie_loss as win_tie_loss,
)
from .shape import (
    score_matrix as score_matrix,
)
from .significance import (
    ControlTest as ControlTest,
    Friedman as Friedman,
    adjust_p as adjust_p,
    compare_with_control as compare_with_control,
    conover as conover,
    contiguous_groups as contiguous_groups,
    critical_difference as critical_difference,
    friedman as friedman,
    nemenyi as nemenyi,
    sign_test as sign_test,
    wilcoxon as wilcoxon,
)
from .verdicts import (
    Verdict as Verdict,
    verdict as verdict,
)
