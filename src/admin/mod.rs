//! Looking into the proxy: INFO's own sections and the console.
pub mod console;
pub mod info;
