"""Makes `report.html`, the page that shows a run, from the files of its folder."""
