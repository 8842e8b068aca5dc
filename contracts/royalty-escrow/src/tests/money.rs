//! Deposits, penalties, withdrawals.

use schema::escrow::KeeperFee;

use super::*;

#[test]
fn a_deposit_is_the_senders_or_the_beneficiarys_and_is_announced() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 70);
    let gift = ReceiveMsg::Deposit {
        beneficiary: Some(addr("erin").into_string()),
    };
    let response = escrow.send_from("func", "dave", 5, &gift).unwrap();
    assert_eq!((escrow.money_of("dave"), escrow.money_of("erin")), ((70, 0), (5, 0)));
    assert_eq!(
        events(&response),
        [Event::Credited {
            holder: Holder::Address(addr("erin").into_string()),
            reason: Reason::Deposit,
            amount: 5u128.into(),
            item: None,
            deployment: None,
            model: None,
        }]
    );
    assert_eq!(escrow.sums(), (75, 0));
}

#[test]
fn deposits_of_other_tokens_of_nothing_and_for_nobody_are_refused() {
    let mut escrow = Escrow::new();
    let own = ReceiveMsg::Deposit { beneficiary: None };
    let wrong = ContractError::WrongToken {
        token: addr("fake").into_string(),
        func_token: addr("func").into_string(),
    };
    assert_eq!(escrow.send_from("fake", "dave", 5, &own), Err(wrong));
    assert_eq!(
        escrow.send_from("func", "dave", 0, &own),
        Err(ContractError::ZeroAmount)
    );
    for nobody in ["model:demo/child", "DAVE", ""] {
        let gift = ReceiveMsg::Deposit {
            beneficiary: Some(nobody.into()),
        };
        let refused = escrow.send_from("func", "dave", 5, &gift);
        assert!(matches!(refused, Err(ContractError::Std(_))), "{nobody}");
    }
}

#[test]
fn a_penalty_comes_only_from_staking_and_names_its_item() {
    let mut escrow = Escrow::new();
    let penalty = ReceiveMsg::Penalty {
        beneficiary: addr("dave").into_string(),
        item: item(7, 1),
        keeper: None,
    };
    assert_eq!(
        escrow.send_from("func", "mallory", 5, &penalty),
        Err(not_sibling("mallory", "provider staking"))
    );
    let response = escrow.send_from("func", "staking", 5, &penalty).unwrap();
    assert!(matches!(
        events(&response)[..],
        [Event::Credited { reason: Reason::Penalty, item: Some(found), .. }] if found == item(7, 1)
    ));
    assert_eq!(escrow.money_of("dave"), (5, 0));
}

#[test]
fn a_penalty_is_divided_with_who_has_had_it_paid_and_never_into_more_than_it_is() {
    let mut escrow = Escrow::new();
    let penalty = |amount: u128| ReceiveMsg::Penalty {
        beneficiary: addr("dave").into_string(),
        item: item(7, 1),
        keeper: Some(KeeperFee {
            account: addr("kim").into_string(),
            amount: amount.into(),
        }),
    };
    assert!(escrow.send_from("func", "staking", 5, &penalty(6)).is_err());
    assert_eq!((escrow.money_of("dave"), escrow.money_of("kim")), ((0, 0), (0, 0)));
    let response = escrow.send_from("func", "staking", 5, &penalty(2)).unwrap();
    assert!(matches!(
        events(&response)[..],
        [
            Event::Credited { reason: Reason::Keeper, item: Some(found), .. },
            Event::Credited { reason: Reason::Penalty, .. }
        ] if found == item(7, 1)
    ));
    assert_eq!((escrow.money_of("dave"), escrow.money_of("kim")), ((3, 0), (2, 0)));
    // All of it, and nothing of it, leave no empty credit.
    for (fee, credits) in [(5, 1), (0, 1)] {
        let response = escrow.send_from("func", "staking", 5, &penalty(fee)).unwrap();
        assert_eq!(events(&response).len(), credits);
    }
}

#[test]
fn available_money_can_be_withdrawn_at_any_time_and_no_more() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 70);
    let withdraw = |amount: Option<u128>| ExecuteMsg::Withdraw {
        amount: amount.map(Uint128::new),
    };
    let too_much = ContractError::InsufficientFunds {
        available: 70u128.into(),
        required: 71u128.into(),
    };
    assert_eq!(escrow.by("dave", withdraw(Some(71))), Err(too_much));
    assert_eq!(escrow.by("dave", withdraw(Some(0))), Err(ContractError::ZeroAmount));
    let response = escrow.by("dave", withdraw(Some(20))).unwrap();
    let transfer = Cw20ExecuteMsg::Transfer {
        recipient: addr("dave").into_string(),
        amount: 20u128.into(),
    };
    assert_eq!(
        messages(&response),
        [(addr("func").into_string(), serde_json::to_value(transfer).unwrap())]
    );
    assert!(matches!(events(&response)[..], [Event::Withdrawn { amount, .. }] if amount.u128() == 20));
    escrow.by("dave", withdraw(None)).unwrap();
    assert_eq!(escrow.by("dave", withdraw(None)), Err(ContractError::ZeroAmount));
    assert_eq!(escrow.sums(), (0, 0));
}

#[test]
fn money_lists_the_holds_of_an_account_page_by_page() {
    let mut escrow = Escrow::new();
    escrow.deposit("dave", 100);
    escrow.deposit("erin", 100);
    for job in 1..=3 {
        escrow.hold(job, 10).unwrap();
    }
    let expires_at = escrow.now() + 1;
    escrow
        .by("orchestrator", hold_of("erin", 4, 10, terms(), expires_at))
        .unwrap();
    let page = |start_after| -> Vec<u64> {
        let money: MoneyResponse = escrow.ask(QueryMsg::Money {
            holder: addr("dave").into_string(),
            start_after,
            sessions_after: None,
            limit: Some(2),
        });
        assert_eq!((money.available.u128(), money.held.u128()), (70, 30));
        money.holds.iter().map(|hold| hold.job).collect()
    };
    assert_eq!(
        (page(None), page(Some(2)), page(Some(3))),
        (vec![1, 2], vec![3], vec![])
    );
}

#[test]
fn what_could_not_be_a_holder_is_not_looked_up() {
    let escrow = Escrow::new();
    let long = "x".repeat(70_000);
    for holder in [long.clone(), format!("model:{long}"), String::new()] {
        for question in [
            QueryMsg::Earnings { holder: holder.clone() },
            QueryMsg::Money {
                holder: holder.clone(),
                start_after: None,
                sessions_after: None,
                limit: None,
            },
        ] {
            crate::contract::query(escrow.deps.as_ref(), escrow.env.clone(), question).unwrap_err();
        }
    }
}
