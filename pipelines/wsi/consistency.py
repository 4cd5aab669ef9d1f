"""The student's view of a bag follows the teacher's, in the space of bag features.

Source: Tang et al., ICCV 2023, eq. 9, with the student's softmax that the equation leaves out and the code has.
"""

from torch import Tensor

from pipelines.wsi.precision import full_precision


def consistency(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy from the teacher's sharpened to the student's distribution over features, mean over rows.

    The teacher's entropy is its lower bound, so that values near ``ln D`` are normal in the beginning.

    Args:
        student: ``(rows, D)`` bag features, a row or one per class.
        teacher: ``(rows, D)``, detached here.
        temperature: Of the teacher alone.
    """
    target = (full_precision(teacher.detach()) / temperature).softmax(dim=-1)
    return -(target * full_precision(student).log_softmax(dim=-1)).sum(dim=-1).mean()
