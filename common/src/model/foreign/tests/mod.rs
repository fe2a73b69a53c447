//! Files of other tools, as those write them, damaged, and malicious (`scripts/reference/{state_dicts,torchscript}.py` made them).

mod index;
mod script;
mod torch;
