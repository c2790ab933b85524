"""DICOM: the series of a folder, and a series as volumes, its frames sorted, checked and rescaled each."""
