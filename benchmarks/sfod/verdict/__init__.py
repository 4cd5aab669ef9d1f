"""The meta-set on which the rule of the verdict without labels is fitted."""
