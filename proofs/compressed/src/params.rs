//! Parameters.
use bellperson::groth16::{Parameters, VerifyingKey, generate_random_parameters};
use blstrs::Bls12;
use thiserror::Error;
use rand_core::{CryptoRng, RngCore};
use crate::shape::Shape;
use crate::circuit::AuditCircuit;
#[derive(Debug, Error)]
pub enum ParamsError { #[error("x")] X(#[from] bellpepper_core::SynthesisError)}
pub enum Phase {}
pub struct LocalParameters { shape: Shape, groth: Parameters<Bls12> }
impl LocalParameters {
    pub fn generate<R: RngCore+CryptoRng>(shape: Shape, rng: &mut R) -> Result<Self, ParamsError> {
        Ok(Self{shape, groth: generate_random_parameters(AuditCircuit::blank(shape), rng)?})
    }
    pub fn shape(&self)->Shape{self.shape}
    pub(crate) fn groth(&self)->&Parameters<Bls12>{&self.groth}
    pub fn verifying_key(&self)->LocalVerifyingKey{ LocalVerifyingKey{shape:self.shape, groth:self.groth.vk.clone(), digest:[0;32]}}
}
pub struct LocalVerifyingKey { shape: Shape, groth: VerifyingKey<Bls12>, digest:[u8;32] }
impl LocalVerifyingKey {
    pub fn shape(&self)->Shape{self.shape}
    pub(crate) fn groth(&self)->&VerifyingKey<Bls12>{&self.groth}
    pub fn digest(&self)->&[u8;32]{&self.digest}
}
