"""Questions: published forms, VitalQA and its rules, supporting passages."""
