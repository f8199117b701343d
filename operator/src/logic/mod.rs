//! What decides. Nothing here reads a clock, a socket or a file: all that is known comes in as [`observed::Observed`],
//! all that is to be done goes out as a [`plan::Plan`].

pub mod children;
pub mod drift;
pub mod gate;
pub mod install;
pub mod lease;
pub mod observed;
pub mod plan;
pub mod report;
pub mod roll;
pub mod scale_down;
pub mod validate;
