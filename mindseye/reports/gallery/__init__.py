"""The gallery: one static page that shows the runs of a folder. `collecting` reads them, `writing` makes the page."""

from mindseye.reports.gallery.collecting import ListedRun, collect
from mindseye.reports.gallery.writing import copy_gallery, write_gallery

__all__ = ["ListedRun", "collect", "copy_gallery", "write_gallery"]
