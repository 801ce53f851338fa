//! The functions, driven as their clients drive them: the real binaries behind the local stack.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::string_slice,
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed"
)]

mod api;
mod billing_guards;
mod bodies;
mod claim_trial;
mod contract;
mod costs;
mod create;
mod current_role;
mod destroy;
mod documented;
mod every_route;
mod faults;
mod fields;
mod get_subscription;
mod guards;
mod invariants;
mod invite_user;
mod is_logged;
mod lines;
mod local_page;
mod logs;
mod matrix;
mod meanwhile;
mod misc_plans;
mod notify;
mod oauth_token;
mod operations;
mod paid;
mod permissions;
mod races;
mod remove_invitation;
mod remove_user;
mod replay;
mod replayed_stripe;
mod retrieve;
mod retrieve_all;
mod retrieve_charges;
mod retrieve_invitations;
mod retrieve_users;
mod sam_local;
mod send_feedback;
mod servers;
mod set_notification_state;
mod set_user_role;
mod sight;
mod stripe;
mod tenants;
mod tokens;
mod transfer_ownership;
mod update;
mod update_user_options;
mod upgrade;
