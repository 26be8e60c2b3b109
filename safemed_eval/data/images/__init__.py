"""From image files to pixels: DICOM, TIFF, PNG and the rest."""
