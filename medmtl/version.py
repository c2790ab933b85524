"""The version of medmtl, and the paper whose method it implements."""

__version__ = "0.1.0"

PAPER = (
    "D. Karimi, A. Gholipour: Improving Calibration and Out-of-Distribution Detection in Deep Models for Medical Image "
    "Segmentation. IEEE Transactions on Artificial Intelligence 4(2), 383-397 (2022). doi:10.1109/TAI.2022.3159510"
)
