"""Source-free adaptation of a detector to a new domain, without labels.

Only a detector trained on labelled source images is given. A teacher, the moving average of the student, detects
objects in weak views of the target images; the student learns the confident detections as labels on strong views. LPLD
(Yoon et al., ECCV 2024) adds proposals of low confidence as soft labels; WSCoL (arXiv 2410.05557) adds contrast between
the categories of all proposals. Methods: source, bn, mt, lpld, fixed_pl, wscol_core, wsco_full, wsco_full+lpld, oracle.
"""
