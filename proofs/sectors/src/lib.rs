mod durable;
pub mod engine;
pub mod packing;
pub mod params;
pub mod profile;
pub mod proof;
pub mod sector;
mod types;
pub mod work;
pub mod workshop;

pub use params::{Circuit, ParameterStore, ParamsError};
pub use profile::{Profile, SealMode, TEST_STRENGTH};
pub use types::Bytes32;
pub use workshop::{Workshop, WorkshopError};
