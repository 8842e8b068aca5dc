//! Laws of the workspace itself: who may depend on whom, what is really used, which licences come along, how long a file may be.

mod dependencies;
mod gas;
mod licences;
mod localnet;
mod observability;
mod readmes;
mod sources;
