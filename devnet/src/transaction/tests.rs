use cosmrs::proto::cosmos::tx::v1beta1::{Fee, ModeInfo, SignerInfo};
use k256::ecdsa::{signature::hazmat::PrehashSigner, SigningKey};

use super::*;

const CHAIN: &str = "chain-1";

/// A valid transaction, and what each test makes of it.
fn tx(change: impl FnOnce(&mut TxBody, &mut AuthInfo, &mut TxRaw)) -> Result<Tx, Refusal> {
    let send = MsgSend {
        from_address: "wasm1from".into(),
        to_address: "wasm1to".into(),
        amount: vec![proto_coin("ustake", "5")],
    };
    let mut body = TxBody {
        messages: vec![any(&send)],
        ..TxBody::default()
    };
    #[allow(
        deprecated,
        reason = "the deprecated field stays empty, but a struct literal must name it"
    )]
    let mut auth = AuthInfo {
        signer_infos: vec![signer(DIRECT)],
        fee: Some(Fee::default()),
        tip: None,
    };
    let mut raw = TxRaw {
        signatures: vec![vec![0; 64]],
        ..TxRaw::default()
    };
    change(&mut body, &mut auth, &mut raw);
    raw.body_bytes = body.encode_to_vec();
    raw.auth_info_bytes = auth.encode_to_vec();
    Tx::decode(raw.encode_to_vec())
}

fn signer(mode: i32) -> SignerInfo {
    let sum = Some(mode_info::Sum::Single(mode_info::Single { mode }));
    SignerInfo {
        mode_info: Some(ModeInfo { sum }),
        ..SignerInfo::default()
    }
}

fn any<M: cosmrs::proto::traits::Message + Name>(message: &M) -> Any {
    Any {
        type_url: M::type_url(),
        value: message.encode_to_vec(),
    }
}

fn proto_coin(denom: &str, amount: &str) -> ProtoCoin {
    ProtoCoin {
        denom: denom.into(),
        amount: amount.into(),
    }
}

fn code_of(change: impl FnOnce(&mut TxBody, &mut AuthInfo, &mut TxRaw)) -> u32 {
    tx(change).unwrap_err().code
}

#[test]
fn a_transaction_of_another_form_is_refused_with_its_own_code() {
    assert!(tx(|_, _, _| {}).is_ok());
    for mode in [DIRECT, AMINO_JSON] {
        let taken = tx(|_, auth, _| auth.signer_infos = vec![signer(mode)]).unwrap();
        assert!(taken.check_mode().is_ok());
    }
    // None, as in simulations, and SIGN_MODE_TEXTUAL.
    for mode in [UNSPECIFIED, 2] {
        let decoded = tx(|_, auth, _| auth.signer_infos = vec![signer(mode)]).unwrap();
        assert_eq!(decoded.check_mode().unwrap_err().code, 4);
    }
    assert_eq!(code_of(|_, auth, _| auth.signer_infos.push(signer(DIRECT))), 4);
    assert_eq!(code_of(|_, _, raw| raw.signatures.clear()), 4);
    assert_eq!(code_of(|_, auth, _| auth.fee = None), 2);
    assert_eq!(code_of(|body, _, _| body.memo = "m".repeat(257)), 12);
    assert_eq!(code_of(|body, _, _| body.messages.clear()), 18);
    assert_eq!(
        code_of(|body, _, _| body.messages[0].type_url = "/cosmos.gov.v1.MsgVote".into()),
        6
    );
    assert_eq!(code_of(|body, _, _| body.messages[0].value = vec![255]), 2);
}

#[test]
fn coins_that_are_unsorted_double_zero_or_no_number_are_refused() {
    let with = |coins: &[(&str, &str)]| {
        let coins: Vec<_> = coins.iter().map(|(denom, amount)| proto_coin(denom, amount)).collect();
        super::coins(&coins).map_err(|refusal| refusal.code)
    };
    assert!(with(&[("a", "1"), ("b", "2")]).is_ok());
    for coins in [
        &[("b", "1"), ("a", "1")],
        &[("a", "1"), ("a", "1")],
        &[("a", "1"), ("b", "0")],
    ] {
        assert_eq!(with(coins), Err(10));
    }
    assert_eq!(with(&[("a", "-1")]), Err(10));
}

#[test]
fn a_transaction_is_over_after_its_last_height() {
    let limited = tx(|body, _, _| body.timeout_height = 9).unwrap();
    assert!(limited.check_timeout(9).is_ok());
    assert_eq!(limited.check_timeout(10).unwrap_err().code, 30);
    assert!(tx(|_, _, _| {}).unwrap().check_timeout(u64::MAX).is_ok());
}

#[test]
fn only_the_low_s_signature_over_chain_and_account_holds() {
    let key = SigningKey::from_slice(&[7; 32]).unwrap();
    let public: [u8; 33] = key
        .verifying_key()
        .to_encoded_point(true)
        .as_bytes()
        .try_into()
        .unwrap();
    let mut tx = tx(|_, _, _| {}).unwrap();
    let document = SignDoc {
        body_bytes: tx.body_bytes.clone(),
        auth_info_bytes: tx.auth_info_bytes.clone(),
        chain_id: CHAIN.into(),
        account_number: 3,
    };
    let signature: Signature = key.sign_prehash(&Sha256::digest(document.encode_to_vec())).unwrap();
    tx.signature = signature.to_vec();
    assert!(tx.is_signed_by(&public, CHAIN, 3));
    assert!(!tx.is_signed_by(&public, CHAIN, 4));
    assert!(!tx.is_signed_by(&public, "chain-2", 3));
    let (r, s) = signature.split_scalars();
    tx.signature = Signature::from_scalars(r, -s).unwrap().to_vec();
    assert!(!tx.is_signed_by(&public, CHAIN, 3));
    tx.signature.pop();
    assert!(!tx.is_signed_by(&public, CHAIN, 3));
}
