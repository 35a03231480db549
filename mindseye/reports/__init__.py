"""For people: comparisons, tables and pages made of what runs left behind."""
