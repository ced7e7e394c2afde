//! Pointsman: an Envoy ext_proc endpoint picker for LLM inference.
