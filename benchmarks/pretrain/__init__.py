"""The study of ``pipelines.pretrain``, and what a step costs."""
