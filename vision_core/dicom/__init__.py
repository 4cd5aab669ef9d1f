"""Reading of DICOM images: file structure, checks, codestreams, display values."""
