//! x
mod datapath;
