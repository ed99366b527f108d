//! Every opcode on every type it takes compiles without relocations.
