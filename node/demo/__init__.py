"""The demonstration: the exam of a synthetic patient goes from an embedded PACS to the node, and the results back."""
