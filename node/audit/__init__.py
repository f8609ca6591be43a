"""Tells who did what with which studies, as DICOM audit messages (PS3.15 A.5), to a file and to syslog over TLS."""
