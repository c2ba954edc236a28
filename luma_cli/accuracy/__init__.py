"""How pretraining, family, size and resolution move mIoU: a model learned from the evidence, with its uncertainty."""
