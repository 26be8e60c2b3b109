"""What a table is, in Markdown, LaTeX and CSV; `report.tables` makes those of a report."""
