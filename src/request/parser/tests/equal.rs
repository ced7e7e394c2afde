//! Equal prompts stay equal.
