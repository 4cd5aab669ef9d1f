"""Reading of DICOM files: structure, checks, codestreams, display."""
