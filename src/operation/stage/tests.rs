//! The states of one operation.

use cryptoki_sys::CKR_DATA_INVALID;

use super::*;

const INPUT: &[u8] = b"input";
const SMALL: Room = Room::Bytes(3);
const EXACT: Room = Room::Bytes(4);
const LARGE: Room = Room::Bytes(9);

fn active() -> Stage<Vec<u8>> {
    let mut stage = Stage::Idle;
    stage.begin(|| Ok(vec![])).unwrap();
    stage
}

fn ok(_: Vec<u8>) -> Result<Zeroizing<Vec<u8>>> {
    Ok(Zeroizing::new(b"four".to_vec()))
}

fn bad(_: Vec<u8>) -> Result<Zeroizing<Vec<u8>>> {
    Err(Error::new(CKR_DATA_INVALID, "bad"))
}

fn never(_: Vec<u8>) -> Result<Zeroizing<Vec<u8>>> {
    panic!("a query or a short buffer must not carry out the operation")
}

fn rv<A: std::fmt::Debug>(result: Result<A>) -> cryptoki_sys::CK_RV {
    result.unwrap_err().rv()
}

fn bytes(answer: &Answer) -> &[u8] {
    match answer {
        Answer::Bytes(bytes) => bytes,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_works_before_begin_and_nothing_after_the_end() {
    let mut stage: Stage<Vec<u8>> = Stage::Idle;
    for round in 0..2 {
        assert_eq!(rv(stage.update(|_| Ok(()))), CKR_OPERATION_NOT_INITIALIZED, "{round}");
        assert_eq!(
            rv(stage.one_shot(LARGE, INPUT, |_| Ok(Size::Exact(4)), never)),
            CKR_OPERATION_NOT_INITIALIZED
        );
        assert_eq!(
            rv(stage.last(Room::Query, |_| Ok(Size::Exact(4)), never)),
            CKR_OPERATION_NOT_INITIALIZED
        );
        assert_eq!(
            rv(stage.step(LARGE, |_| Ok(1), |_| Ok(Zeroizing::new(vec![])))),
            CKR_OPERATION_NOT_INITIALIZED
        );
        assert_eq!(rv(stage.take(true)), CKR_OPERATION_NOT_INITIALIZED);
        assert_eq!(rv(stage.active()), CKR_OPERATION_NOT_INITIALIZED);
        stage = active();
        stage.one_shot(LARGE, INPUT, |_| Ok(Size::Exact(4)), ok).unwrap();
    }
}

#[test]
fn a_second_begin_is_refused_and_keeps_the_first() {
    let mut stage = active();
    assert_eq!(rv(stage.begin(|| panic!("not made"))), CKR_OPERATION_ACTIVE);
    assert!(stage.is_active());
    stage.cancel();
    assert!(!stage.is_active());
    stage.cancel();
    assert_eq!(rv(stage.begin(|| Err(Error::new(CKR_DATA_INVALID, "")))), CKR_DATA_INVALID);
    assert!(!stage.is_active());
}

#[test]
fn exact_size_is_answered_without_running() {
    for final_call in [false, true] {
        let mut stage = active();
        let mut call = |room, run: fn(Vec<u8>) -> _| {
            if final_call {
                stage.last(room, |_| Ok(Size::Exact(4)), run)
            } else {
                stage.one_shot(room, INPUT, |_| Ok(Size::Exact(4)), run)
            }
        };
        assert_eq!(call(Room::Query, never).unwrap(), Answer::Length(4));
        assert_eq!(call(SMALL, never).unwrap(), Answer::TooSmall(4));
        assert_eq!(call(Room::Bytes(0), never).unwrap(), Answer::TooSmall(4));
        assert_eq!(bytes(&call(EXACT, ok).unwrap()), b"four");
        assert_eq!(rv(call(EXACT, never)), CKR_OPERATION_NOT_INITIALIZED);
    }
}

#[test]
fn inexact_result_is_made_once_and_kept_for_the_same_input() {
    let bound = |_: &Vec<u8>| Ok(Size::AtMost(8));
    let mut stage = active();
    assert_eq!(
        stage.one_shot(Room::Query, INPUT, bound, never).unwrap(),
        Answer::Length(8),
        "a query gives the bound"
    );
    assert_eq!(stage.one_shot(SMALL, INPUT, bound, ok).unwrap(), Answer::TooSmall(4));
    assert_eq!(stage.one_shot(Room::Query, INPUT, bound, never).unwrap(), Answer::Length(4));
    assert_eq!(stage.one_shot(SMALL, INPUT, bound, never).unwrap(), Answer::TooSmall(4));
    assert_eq!(bytes(&stage.one_shot(EXACT, INPUT, bound, never).unwrap()), b"four");
    assert!(!stage.is_active());
}

#[test]
fn a_kept_result_is_not_given_for_other_input() {
    let bound = |_: &Vec<u8>| Ok(Size::AtMost(8));
    let mut stage = active();
    stage.one_shot(SMALL, INPUT, bound, ok).unwrap();
    assert_eq!(rv(stage.one_shot(LARGE, b"other", bound, never)), CKR_OPERATION_NOT_INITIALIZED);
    assert!(!stage.is_active(), "other input discards it");

    let mut stage = active();
    stage.one_shot(SMALL, INPUT, bound, ok).unwrap();
    assert_eq!(rv(stage.last(LARGE, bound, never)), CKR_OPERATION_NOT_INITIALIZED);

    let mut stage = active();
    stage.update(|_| Ok(())).unwrap();
    stage.last(SMALL, bound, ok).unwrap();
    assert_eq!(bytes(&stage.last(LARGE, bound, never).unwrap()), b"four");
}

#[test]
fn an_inexact_result_that_fits_below_its_bound_is_given_at_once() {
    let mut stage = active();
    let answer = stage.one_shot(EXACT, INPUT, |_| Ok(Size::AtMost(8)), ok).unwrap();
    assert_eq!(bytes(&answer), b"four");
}

#[test]
fn every_error_ends_the_operation() {
    let exact = |_: &Vec<u8>| Ok(Size::Exact(4));
    let mut stage = active();
    assert_eq!(rv(stage.one_shot(LARGE, INPUT, exact, bad)), CKR_DATA_INVALID);
    assert!(!stage.is_active());

    let mut stage = active();
    assert_eq!(
        rv(stage.one_shot(Room::Query, INPUT, |_| Err(Error::new(CKR_DATA_INVALID, "")), never)),
        CKR_DATA_INVALID
    );
    assert!(!stage.is_active());

    let mut stage = active();
    assert_eq!(rv(stage.update(|_| Err(Error::new(CKR_DATA_INVALID, "")))), CKR_DATA_INVALID);
    assert!(!stage.is_active());

    let mut stage = active();
    assert_eq!(
        rv(stage.one_shot(LARGE, INPUT, |_| Ok(Size::Exact(5)), ok)),
        CKR_GENERAL_ERROR,
        "a result of another length than announced never leaves"
    );
    assert!(!stage.is_active());
}

#[test]
fn a_one_shot_call_cannot_end_a_multi_part_operation() {
    let mut stage = active();
    stage
        .update(|fed| {
            fed.push(1);
            Ok(())
        })
        .unwrap();
    assert_eq!(
        rv(stage.one_shot(LARGE, INPUT, |_| Ok(Size::Exact(4)), never)),
        CKR_OPERATION_NOT_INITIALIZED
    );
    assert!(!stage.is_active());
    let mut stage = active();
    stage.update(|_| Ok(())).unwrap();
    assert_eq!(rv(stage.take(true)), CKR_OPERATION_NOT_INITIALIZED);
    assert!(!stage.is_active());
    let mut stage = active();
    stage.update(|_| Ok(())).unwrap();
    assert!(stage.take(false).is_ok());
    assert!(!stage.is_active());
}

#[test]
fn a_step_feeds_nothing_until_its_output_fits() {
    let mut stage = active();
    let feed = |fed: &mut Vec<u8>| {
        fed.push(1);
        Ok(Zeroizing::new(fed.clone()))
    };
    assert_eq!(stage.step(Room::Query, |_| Ok(1), feed).unwrap(), Answer::Length(1));
    assert_eq!(stage.step(Room::Bytes(0), |_| Ok(1), feed).unwrap(), Answer::TooSmall(1));
    assert!(matches!(stage, Stage::Active(_)), "still a one-shot call is possible");
    assert_eq!(bytes(&stage.step(SMALL, |_| Ok(1), feed).unwrap()), [1]);
    assert_eq!(bytes(&stage.step(SMALL, |_| Ok(2), feed).unwrap()), [1, 1]);
    assert!(matches!(stage, Stage::Updating(_)));
    assert_eq!(
        rv(stage.step(SMALL, |_| Ok(1), |_| Err(Error::new(CKR_DATA_INVALID, "")))),
        CKR_DATA_INVALID
    );
    assert!(!stage.is_active());
}

#[test]
fn arguments_that_cannot_be_read_end_the_operation() {
    let mut stage: Stage<Vec<u8>> = Stage::Idle;
    let bad = || -> Result<()> { Err(Error::new(CKR_DATA_INVALID, "")) };
    assert_eq!(rv(stage.arguments(bad)), CKR_OPERATION_NOT_INITIALIZED);
    let mut stage = active();
    assert_eq!(stage.arguments(|| Ok(1)).unwrap(), 1);
    assert!(stage.is_active());
    assert_eq!(rv(stage.arguments(bad)), CKR_DATA_INVALID);
    assert!(!stage.is_active());
}

#[test]
fn a_panic_leaves_the_stage_idle() {
    let mut stage = active();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        stage.one_shot(LARGE, INPUT, |_| Ok(Size::Exact(4)), |_| panic!("inside"))
    }));
    assert!(panicked.is_err());
    assert!(!stage.is_active());
}
