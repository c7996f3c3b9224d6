"""The studies on images, by name."""

from __future__ import annotations

from crossfade.lab.paper import motivating, normmatched, table1, table2, table5, table6

IMAGE_STUDIES = {
    study.name: study
    for study in (
        table1.STUDY,
        table2.STUDY,
        table5.STUDY,
        table6.STUDY,
        motivating.STUDY,
        normmatched.STUDY,
    )
}
