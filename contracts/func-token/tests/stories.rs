//! Stories of FUNC on a simulated chain.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    reason = "a failed expectation is the message"
)]

use cosmwasm_std::{coins, from_json, to_json_binary, Addr, Binary, Empty, StdError, Uint128};
use cw20::{
    AllAccountsResponse, AllowanceResponse, BalanceResponse, Cw20Coin, Cw20ReceiveMsg, Logo, MarketingInfoResponse,
    MinterResponse, TokenInfoResponse,
};
use cw_multi_test::{App, AppResponse, ContractWrapper, Executor};
use func_token::{contract, ContractError};
use proptest::prelude::*;
use schema::{
    text::TextError,
    token::{ExecuteMsg, InstantiateMsg, QueryMsg},
    TOTAL_SUPPLY,
};

struct Token {
    app: App,
    code: u64,
    address: Addr,
}

type Outcome = Result<AppResponse, ContractError>;

impl Token {
    /// Ann holds all FUNC; Mel may do the marketing.
    fn new() -> Self {
        let mut app = App::default();
        let code = app.store_code(Box::new(ContractWrapper::new(
            contract::execute,
            contract::instantiate,
            contract::query,
        )));
        let mut token = Self {
            app,
            code,
            address: Addr::unchecked("none yet"),
        };
        token.address = token.instantiate(&[("ann", TOTAL_SUPPLY)]).unwrap();
        token
    }

    fn instantiate(&mut self, balances: &[(&str, u128)]) -> Result<Addr, ContractError> {
        let initial_balances = balances
            .iter()
            .map(|(name, amount)| Cw20Coin {
                address: self.who(name).into(),
                amount: (*amount).into(),
            })
            .collect();
        let msg = InstantiateMsg {
            initial_balances,
            marketing: Some(self.who("mel").into()),
        };
        let creator = self.who("creator");
        let result = self
            .app
            .instantiate_contract(self.code, creator, &msg, &[], "func", None);
        result.map_err(|error| error.downcast().unwrap())
    }

    fn who(&self, name: &str) -> Addr {
        self.app.api().addr_make(name)
    }

    fn execute(&mut self, sender: &str, msg: &ExecuteMsg) -> Outcome {
        let sender = self.who(sender);
        let result = self.app.execute_contract(sender, self.address.clone(), msg, &[]);
        result.map_err(|error| error.downcast().unwrap())
    }

    fn transfer(&mut self, sender: &str, recipient: &str, amount: u128) -> Outcome {
        let recipient = self.who(recipient).into();
        self.execute(
            sender,
            &ExecuteMsg::Transfer {
                recipient,
                amount: amount.into(),
            },
        )
    }

    fn query<T: serde::de::DeserializeOwned>(&self, msg: &QueryMsg) -> T {
        self.app.wrap().query_wasm_smart(&self.address, msg).unwrap()
    }

    fn balance(&self, name: &str) -> u128 {
        let address = self.who(name).into();
        self.query::<BalanceResponse>(&QueryMsg::Balance { address })
            .balance
            .u128()
    }

    fn supply(&self) -> u128 {
        self.query::<TokenInfoResponse>(&QueryMsg::TokenInfo {})
            .total_supply
            .u128()
    }
}

#[test]
fn it_is_named_and_divided_as_promised() {
    let token = Token::new();
    let info: TokenInfoResponse = token.query(&QueryMsg::TokenInfo {});
    assert_eq!(
        (info.name.as_str(), info.symbol.as_str(), info.decimals),
        ("Function", "FUNC", 6)
    );
    assert_eq!(
        (token.supply(), token.balance("ann")),
        (1_000_000_000_000_000, TOTAL_SUPPLY)
    );
    let version = cw2::query_contract_info(&token.app.wrap(), &token.address).unwrap();
    assert_eq!(version.contract, "func-token");
}

#[test]
fn initial_balances_must_be_all_func() {
    let mut token = Token::new();
    for (balances, sum) in [
        (vec![], 0),
        (vec![("ann", TOTAL_SUPPLY - 1)], TOTAL_SUPPLY - 1),
        (vec![("ann", TOTAL_SUPPLY), ("bob", 1)], TOTAL_SUPPLY + 1),
        (vec![("ann", u128::MAX), ("bob", TOTAL_SUPPLY + 1)], u128::MAX),
    ] {
        let supply = TOTAL_SUPPLY.into();
        let refused = ContractError::WrongSupply {
            sum: sum.into(),
            supply,
        };
        assert_eq!(token.instantiate(&balances).unwrap_err(), refused);
    }
    let twice = [("ann", 1), ("ann", TOTAL_SUPPLY - 1)];
    assert_eq!(
        token.instantiate(&twice).unwrap_err(),
        ContractError::Token(cw20_base::ContractError::DuplicateInitialBalanceAddresses {})
    );
    token.instantiate(&[("ann", 1), ("bob", TOTAL_SUPPLY - 1)]).unwrap();
}

#[test]
fn nobody_mints() {
    let mut token = Token::new();
    let unauthorised = ContractError::Token(cw20_base::ContractError::Unauthorized {});
    for sender in ["creator", "ann", "mel"] {
        let recipient = token.who("ann").into();
        let mint = ExecuteMsg::Mint {
            recipient,
            amount: Uint128::one(),
        };
        assert_eq!(token.execute(sender, &mint).unwrap_err(), unauthorised);
        let new_minter = Some(token.who(sender).into());
        let update = ExecuteMsg::UpdateMinter { new_minter };
        assert_eq!(token.execute(sender, &update).unwrap_err(), unauthorised);
    }
    assert_eq!(token.query::<Option<MinterResponse>>(&QueryMsg::Minter {}), None);
    assert_eq!(token.supply(), TOTAL_SUPPLY);
}

#[test]
fn nobody_moves_or_burns_more_than_he_has() {
    let mut token = Token::new();
    token.transfer("ann", "bob", 10).unwrap();
    let account = token.who("bob").to_string();
    let overdrawn = |required: u128| ContractError::InsufficientFunds {
        account: account.clone(),
        balance: 10u128.into(),
        required: required.into(),
    };
    assert_eq!(token.transfer("bob", "ann", 11).unwrap_err(), overdrawn(11));
    let burn = |amount: u128| ExecuteMsg::Burn { amount: amount.into() };
    assert_eq!(
        token.execute("bob", &burn(u128::MAX)).unwrap_err(),
        overdrawn(u128::MAX)
    );
    token.execute("bob", &burn(4)).unwrap();
    assert_eq!((token.balance("bob"), token.supply()), (6, TOTAL_SUPPLY - 4));
}

#[test]
fn native_coins_are_refused_rather_than_lost() {
    let mut token = Token::new();
    let ann = token.who("ann");
    token
        .app
        .init_modules(|router, _, storage| router.bank.init_balance(storage, &ann, coins(5, "ustake")))
        .unwrap();
    let burn = ExecuteMsg::Burn { amount: Uint128::one() };
    let refused = token
        .app
        .execute_contract(ann, token.address.clone(), &burn, &coins(5, "ustake"))
        .unwrap_err();
    let refused: ContractError = refused.downcast().unwrap();
    assert_eq!(refused, ContractError::Payment(cw_utils::PaymentError::NonPayable {}));
}

#[test]
fn an_allowance_is_spent_once() {
    let mut token = Token::new();
    let (ann, bob) = (token.who("ann").to_string(), token.who("bob").to_string());
    let allow = |amount: u128| ExecuteMsg::IncreaseAllowance {
        spender: bob.clone(),
        amount: amount.into(),
        expires: None,
    };
    let spend = |amount: u128| ExecuteMsg::TransferFrom {
        owner: ann.clone(),
        recipient: bob.clone(),
        amount: amount.into(),
    };
    assert_eq!(
        token.execute("bob", &spend(1)).unwrap_err(),
        ContractError::Token(cw20_base::ContractError::NoAllowance {})
    );
    token.execute("ann", &allow(10)).unwrap();
    token.execute("bob", &spend(6)).unwrap();
    let exceeded = ContractError::InsufficientAllowance {
        owner: ann.clone(),
        spender: bob.clone(),
        allowed: 4u128.into(),
        required: 6u128.into(),
    };
    assert_eq!(token.execute("bob", &spend(6)).unwrap_err(), exceeded);
    let burn = ExecuteMsg::BurnFrom {
        owner: ann.clone(),
        amount: 3u128.into(),
    };
    token.execute("bob", &burn).unwrap();
    let less = ExecuteMsg::DecreaseAllowance {
        spender: bob.clone(),
        amount: 1u128.into(),
        expires: None,
    };
    token.execute("ann", &less).unwrap();
    let left: AllowanceResponse = token.query(&QueryMsg::Allowance {
        owner: ann,
        spender: bob,
    });
    assert_eq!(
        (left.allowance.u128(), token.balance("bob"), token.supply()),
        (0, 6, TOTAL_SUPPLY - 3)
    );
}

/// cw20-base adds without looking: the second message would have aborted.
#[test]
fn an_allowance_beyond_all_numbers_is_refused() {
    let mut token = Token::new();
    let spender = token.who("bob").to_string();
    let allow = |amount: u128| ExecuteMsg::IncreaseAllowance {
        spender: spender.clone(),
        amount: amount.into(),
        expires: None,
    };
    token.execute("ann", &allow(u128::MAX)).unwrap();
    let overflow = ContractError::AllowanceOverflow {
        allowed: u128::MAX.into(),
        added: 1u128.into(),
    };
    assert_eq!(token.execute("ann", &allow(1)).unwrap_err(), overflow);
    let unknown = ExecuteMsg::DecreaseAllowance {
        spender: token.who("cat").to_string(),
        amount: 1u128.into(),
        expires: None,
    };
    let none = ContractError::Token(cw20_base::ContractError::NoAllowance {});
    assert_eq!(token.execute("ann", &unknown).unwrap_err(), none);
}

/// A contract that takes the cw20 hook, and refuses it if its message says so.
fn receiver() -> ContractWrapper<ReceiverMsg, Empty, Empty, StdError, StdError, StdError> {
    ContractWrapper::new(
        |_, _, _, ReceiverMsg::Receive(hook): ReceiverMsg| {
            let word: String = from_json(&hook.msg)?;
            match word.as_str() {
                "take" => Ok(cosmwasm_std::Response::new().add_attribute("taken", hook.amount)),
                _ => Err(StdError::generic_err("the receiver does not want it")),
            }
        },
        |_, _, _, _: Empty| Ok(cosmwasm_std::Response::new()),
        |_, _, _: Empty| Ok(Binary::default()),
    )
}

#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum ReceiverMsg {
    Receive(Cw20ReceiveMsg),
}

#[test]
fn a_send_that_its_receiver_refuses_moves_nothing() {
    let mut token = Token::new();
    let code = token.app.store_code(Box::new(receiver()));
    let creator = token.who("creator");
    let shop = token
        .app
        .instantiate_contract(code, creator, &Empty {}, &[], "shop", None)
        .unwrap();
    let send = |word: &str| ExecuteMsg::Send {
        contract: shop.to_string(),
        amount: 7u128.into(),
        msg: to_json_binary(word).unwrap(),
    };
    let held = |token: &Token| {
        let address = shop.to_string();
        token
            .query::<BalanceResponse>(&QueryMsg::Balance { address })
            .balance
            .u128()
    };
    let refused = token.app.execute_contract(
        token.app.api().addr_make("ann"),
        token.address.clone(),
        &send("no"),
        &[],
    );
    assert!(refused
        .unwrap_err()
        .root_cause()
        .to_string()
        .contains("does not want it"));
    assert_eq!((token.balance("ann"), held(&token)), (TOTAL_SUPPLY, 0));
    token.execute("ann", &send("take")).unwrap();
    assert_eq!((token.balance("ann"), held(&token)), (TOTAL_SUPPLY - 7, 7));

    let (owner, spender) = (token.who("ann").to_string(), token.who("bob").to_string());
    let allow = ExecuteMsg::IncreaseAllowance {
        spender,
        amount: 7u128.into(),
        expires: None,
    };
    token.execute("ann", &allow).unwrap();
    let msg = to_json_binary("take").unwrap();
    let send_from = ExecuteMsg::SendFrom {
        owner,
        contract: shop.to_string(),
        amount: 7u128.into(),
        msg,
    };
    token.execute("bob", &send_from).unwrap();
    assert_eq!(held(&token), 14);
}

#[test]
fn only_the_marketing_account_writes_texts_and_they_are_bounded() {
    let mut token = Token::new();
    let update = |project: String, description: &str| ExecuteMsg::UpdateMarketing {
        project: Some(project),
        description: Some(description.to_owned()),
        marketing: None,
    };
    let logo = |link: String| ExecuteMsg::UploadLogo(Logo::Url(link));
    let unauthorised = ContractError::Token(cw20_base::ContractError::Unauthorized {});
    assert_eq!(
        token.execute("ann", &update("x".into(), "y")).unwrap_err(),
        unauthorised
    );
    assert_eq!(token.execute("ann", &logo("x".into())).unwrap_err(), unauthorised);
    for (msg, field) in [
        (update("x".repeat(257), "y"), "project"),
        (update("x".into(), &"y".repeat(4097)), "description"),
        (logo("x".repeat(257)), "logo"),
    ] {
        let error = token.execute("mel", &msg).unwrap_err();
        assert!(
            matches!(&error, ContractError::Text(TextError::TooLong { field: found, .. }) if found == field),
            "{error}"
        );
    }
    token
        .execute("mel", &update("https://x".into(), "money of inference"))
        .unwrap();
    token.execute("mel", &logo("https://x/logo.png".into())).unwrap();
    let info: MarketingInfoResponse = token.query(&QueryMsg::MarketingInfo {});
    assert_eq!(info.project.as_deref(), Some("https://x"));
    let shown = token
        .app
        .wrap()
        .query_wasm_smart::<Empty>(&token.address, &QueryMsg::DownloadLogo {});
    assert!(shown.is_err(), "a linked logo is not stored on chain");
}

const NAMES: [&str; 4] = ["ann", "bob", "cat", "dan"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn balances_sum_to_the_supply_whatever_happens(
        steps in prop::collection::vec((0..4usize, 0..4usize, 0..3u8, prop_oneof![0..50u128, Just(TOTAL_SUPPLY / 3)]), 1..30),
    ) {
        let mut token = Token::new();
        let mut burnt = 0;
        for (from, to, kind, amount) in steps {
            let (owner, spender) = (token.who(NAMES[from]).to_string(), token.who(NAMES[to]).to_string());
            let amount_text = amount.into();
            match kind {
                0 => drop(token.transfer(NAMES[from], NAMES[to], amount)),
                1 => if token.execute(NAMES[from], &ExecuteMsg::Burn { amount: amount_text }).is_ok() {
                    burnt += amount;
                },
                _ => {
                    let allow = ExecuteMsg::IncreaseAllowance { spender, amount: amount_text, expires: None };
                    drop(token.execute(NAMES[from], &allow));
                    if token.execute(NAMES[to], &ExecuteMsg::BurnFrom { owner, amount: amount_text }).is_ok() {
                        burnt += amount;
                    }
                }
            }
            let sum: u128 = NAMES.iter().map(|name| token.balance(name)).sum();
            prop_assert_eq!(sum, token.supply());
            prop_assert_eq!(token.supply(), TOTAL_SUPPLY - burnt);
        }
        let listed: AllAccountsResponse = token.query(&QueryMsg::AllAccounts { start_after: None, limit: Some(30) });
        prop_assert!(listed.accounts.len() <= NAMES.len());
    }
}
