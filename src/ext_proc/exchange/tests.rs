//! The exchange, mode by mode.

mod modes;
mod orders;
mod request;
mod response;
mod unseen;
