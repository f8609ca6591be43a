"""The demonstration: a synthetic patient, an embedded PACS, one round trip."""
