//! The few pieces that the statement is made of. Each returns what it constrains, never less.

use bellpepper_core::boolean::{AllocatedBit, Boolean};
use bellpepper_core::num::{self, AllocatedNum};
use bellpepper_core::{ConstraintSystem, SynthesisError};
use ff::{Field, PrimeFieldBits};
use neptune::Arity;
use neptune::poseidon::PoseidonConstants;

use crate::field::{ARITY, Fr};

/// A linear combination of variables, with its value where it is known.
pub(super) type Num = num::Num<Fr>;

/// A number that everybody knows.
pub(super) fn constant<CS: ConstraintSystem<Fr>>(value: Fr) -> Num {
    Num::zero().add_bool_with_coeff(CS::one(), &Boolean::Constant(true), value)
}

pub(super) fn sum<'a>(nums: impl Iterator<Item = &'a Num>) -> Num {
    nums.fold(Num::zero(), |sum, num| sum.add(num))
}

/// A new variable: any field element.
pub(super) fn number<CS: ConstraintSystem<Fr>>(
    cs: CS,
    value: Option<Fr>,
) -> Result<AllocatedNum<Fr>, SynthesisError> {
    AllocatedNum::alloc(cs, || value.ok_or(SynthesisError::AssignmentMissing))
}

/// a = b.
pub(super) fn equal<CS: ConstraintSystem<Fr>>(mut cs: CS, a: &Num, b: &Num) {
    cs.enforce(|| "equal", |_| a.lc(Fr::ONE), |lc| lc + CS::one(), |_| b.lc(Fr::ONE));
}

/// a b.
pub(super) fn product<CS: ConstraintSystem<Fr>>(mut cs: CS, a: &Num, b: &Num) -> Result<Num, SynthesisError> {
    let value = a.get_value().zip(b.get_value()).map(|(a, b)| a * b);
    let out: Num = number(cs.namespace(|| "product"), value)?.into();
    cs.enforce(|| "multiplication", |_| a.lc(Fr::ONE), |_| b.lc(Fr::ONE), |_| out.lc(Fr::ONE));
    Ok(out)
}

/// 0 or 1.
pub(super) fn bit<CS: ConstraintSystem<Fr>>(cs: CS, value: Option<bool>) -> Result<Num, SynthesisError> {
    let bit = Boolean::from(AllocatedBit::alloc(cs, value)?);
    Ok(Num::zero().add_bool_with_coeff(CS::one(), &bit, Fr::ONE))
}

/// A number in [0, 2^width), `width` being less than the field has bits: its bits, from the lowest.
pub(super) fn range<CS: ConstraintSystem<Fr>>(
    mut cs: CS,
    num: &Num,
    width: u32,
) -> Result<Vec<Num>, SynthesisError> {
    let known = num.get_value().map(|value| value.to_le_bits());
    let mut bits = Vec::with_capacity(width as usize);
    let mut packed = Num::zero();
    let mut weight = Fr::ONE;
    for i in 0..width as usize {
        let value = known.as_ref().and_then(|bits| bits.get(i).map(|bit| *bit));
        let bit = bit(cs.namespace(|| format!("bit {i}")), value)?;
        packed = packed.add(&bit.clone().scale(weight));
        weight = weight.double();
        bits.push(bit);
    }
    equal(cs.namespace(|| "bits make the number"), &packed, num);
    Ok(bits)
}

/// Three bits, from the lowest, that spell a child's place.
pub(super) fn select_bits<CS: ConstraintSystem<Fr>>(
    mut cs: CS,
    digit: Option<u8>,
) -> Result<[Num; 3], SynthesisError> {
    let mut next = |i: u8| bit(cs.namespace(|| format!("bit {i}")), digit.map(|digit| digit >> i & 1 == 1));
    Ok([next(0)?, next(1)?, next(2)?])
}

/// The one of eight that three bits say.
pub(super) fn select<CS: ConstraintSystem<Fr>>(
    mut cs: CS,
    bits: &[Num; 3],
    options: &[Num],
) -> Result<Num, SynthesisError> {
    debug_assert_eq!(options.len(), ARITY);
    let mut options = options.to_vec();
    for (round, bit) in bits.iter().enumerate() {
        let mut left = Vec::with_capacity(options.len() / 2);
        for (i, [zero, one]) in options.as_chunks::<2>().0.iter().enumerate() {
            let difference = one.clone().add(&zero.clone().scale(-Fr::ONE));
            let cs = cs.namespace(|| format!("round {round} pair {i}"));
            left.push(product(cs, bit, &difference)?.add(zero));
        }
        options = left;
    }
    options.pop().ok_or(SynthesisError::Unsatisfiable)
}

fn s_box<CS: ConstraintSystem<Fr>>(mut cs: CS, x: &Num) -> Result<Num, SynthesisError> {
    let square = product(cs.namespace(|| "square"), x, x)?;
    let fourth = product(cs.namespace(|| "fourth"), &square, &square)?;
    product(cs.namespace(|| "fifth"), &fourth, x)
}

/// The permutation of `field`, round by round. The domain tag is a constant: its first S-box is free.
pub(super) fn poseidon<CS: ConstraintSystem<Fr>, A: Arity<Fr>>(
    mut cs: CS,
    constants: &PoseidonConstants<Fr, A>,
    preimage: &[Num],
) -> Result<Num, SynthesisError> {
    let mut keys = constants.compressed_round_constants.iter();
    let tag = constants.domain_tag + keys.next().unwrap_or(&Fr::ZERO);
    let mut state = vec![constant::<CS>(tag.square().square() * tag)];
    for (i, (num, key)) in preimage.iter().zip(keys.by_ref()).enumerate() {
        let keyed = num.clone().add(&constant::<CS>(*key));
        state.push(s_box(cs.namespace(|| format!("first {i}")), &keyed)?);
    }
    for round in 1..=constants.half_full_rounds {
        if round > 1 {
            state = s_boxes(cs.namespace(|| format!("full {round}")), &state)?;
        }
        state = with_keys::<CS>(state, &mut keys);
        let last = round == constants.half_full_rounds;
        state = times(&state, if last { &constants.pre_sparse_matrix } else { &constants.mds_matrices.m });
    }
    for (round, matrix) in constants.sparse_matrixes.iter().enumerate() {
        let first = state.first().cloned().unwrap_or_else(Num::zero);
        let first = s_box(cs.namespace(|| format!("partial {round}")), &first)?;
        let keyed = with_keys::<CS>(vec![first], &mut keys);
        let first = keyed.into_iter().next().unwrap_or_else(Num::zero);
        let mut next = vec![first.clone()];
        next.extend(state.drain(1..));
        let top = dot(&next, &matrix.w_hat);
        for (num, spread) in next.iter_mut().skip(1).zip(&matrix.v_rest) {
            *num = num.clone().add(&first.clone().scale(*spread));
        }
        next[0] = top;
        state = next;
    }
    for round in 1..constants.half_full_rounds {
        state = s_boxes(cs.namespace(|| format!("late {round}")), &state)?;
        state = with_keys::<CS>(state, &mut keys);
        state = times(&state, &constants.mds_matrices.m);
    }
    state = s_boxes(cs.namespace(|| "last"), &state)?;
    let column: Vec<Fr> = constants.mds_matrices.m.iter().map(|row| row[1]).collect();
    Ok(dot(&state, &column))
}

fn s_boxes<CS: ConstraintSystem<Fr>>(mut cs: CS, state: &[Num]) -> Result<Vec<Num>, SynthesisError> {
    state.iter().enumerate().map(|(i, x)| s_box(cs.namespace(|| format!("s-box {i}")), x)).collect()
}

fn with_keys<'a, CS: ConstraintSystem<Fr>>(
    state: Vec<Num>,
    keys: &mut impl Iterator<Item = &'a Fr>,
) -> Vec<Num> {
    let keyed = |(num, key): (Num, &Fr)| num.add(&constant::<CS>(*key));
    state.into_iter().zip(keys).map(keyed).collect()
}

fn dot(state: &[Num], weights: &[Fr]) -> Num {
    state.iter().zip(weights).fold(Num::zero(), |sum, (num, weight)| sum.add(&num.clone().scale(*weight)))
}

/// The row vector times the matrix.
fn times(state: &[Num], matrix: &[Vec<Fr>]) -> Vec<Num> {
    let columns = (0..state.len()).map(|j| matrix.iter().map(|row| row[j]).collect::<Vec<_>>());
    columns.map(|column| dot(state, &column)).collect()
}
