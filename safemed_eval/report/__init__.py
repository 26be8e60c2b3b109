"""Reading runs: numbers, findings, tables, figures, pages, comparisons. No model is loaded here, and no torch."""
