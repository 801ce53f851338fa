//! The functions, driven as their clients drive them: the real binaries behind the local stack.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

mod api;
mod contract;
mod create;
mod current_role;
mod destroy;
mod documented;
mod every_route;
mod guards;
mod is_logged;
mod logs;
mod oauth_token;
mod replay;
mod retrieve;
mod retrieve_all;
mod sight;
mod update;
