//! What Envoy answers when the picker fails.
