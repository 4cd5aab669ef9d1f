"""Adapt a detector to a new domain without source data and without labels.

A detector trained on labelled source images is all there is of the source. A teacher, its moving average, labels the
target images where it is sure; a student learns these labels on strongly changed views. LPLD (Yoon et al., ECCV 2024)
adds what the teacher is unsure of as soft labels. Methods: source, bn, mt, lpld.
"""
