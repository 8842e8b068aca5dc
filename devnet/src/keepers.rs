//! What wasmd and the bank do and cw-multi-test's own keepers do not: coins that move leave events, contracts that panic or
//! call each other without end are refused, a refusal has the chain's code and words, and a reply sees only what is
//! deterministic of it.
//!
//! Guarantees:
//! - Neither a contract, nor a message or query that cw-multi-test leaves unimplemented, unwinds past here; a panic is the
//!   failure of that one call, so a calling contract may handle it as it may on the chain.
//! - Calls nest at most [`CALLS_MAX`] deep and queries [`QUERIES_MAX`], wasmd's limits: recursion ends in a refusal, not in a
//!   stack overflow.

use std::{
    any::Any,
    cell::Cell,
    fmt::{self, Display},
    panic::{catch_unwind, AssertUnwindSafe},
    rc::Rc,
};

use cosmwasm_std::{
    Addr, Api, BalanceResponse, BankMsg, BankQuery, Binary, BlockInfo, Checksum, Coin, CustomMsg, CustomQuery, Deps,
    DepsMut, Empty, Env, MessageInfo, Querier, QueryRequest, Record, Reply, Response, Storage, SubMsgResult,
    TransactionInfo, WasmMsg, WasmQuery,
};
use cw_multi_test::{
    error::{AnyError, AnyResult},
    AppResponse, Bank, BankKeeper, BankSudo, Contract, ContractData, CosmosRouter, Module, Wasm, WasmKeeper, WasmSudo,
};
use serde::de::DeserializeOwned;

use crate::{
    addresses,
    code::{self, Code, Refusal},
    machine, shape,
};

/// Contracts that call each other, wasmd's default.
pub(crate) const CALLS_MAX: u32 = 500;
/// Queries inside queries, wasmd's default.
pub(crate) const QUERIES_MAX: u32 = 10;
/// Ends what a contract may read of a failure; whatever cw-multi-test adds behind it (a backtrace, for one) stays unread.
const END_OF_REASON: char = '\0';
/// What the chain tells a contract of a failure that has no registered code.
const UNDEFINED: &str = "codespace: undefined, code: 1";

/// Why a message failed, on its way up through cw-multi-test.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) refusal: Refusal,
    /// A contract's own words, which a calling contract may read; of anything else it learns the code only.
    readable: bool,
}

impl Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal { codespace, code, log } = &self.refusal;
        match self.readable {
            true => write!(f, "{log}{END_OF_REASON}"),
            false => write!(f, "codespace: {codespace}, code: {code}{END_OF_REASON}"),
        }
    }
}

impl std::error::Error for Failed {}

/// What a contract answered instead of a result, or that it panicked.
#[derive(Debug, thiserror::Error)]
#[error("{}", .refusal.log)]
struct Raised {
    refusal: Refusal,
    in_reply: bool,
    readable: bool,
}

fn failed(refusal: Refusal) -> AnyError {
    let readable = false;
    AnyError::new(Failed { refusal, readable })
}

/// The refusal inside an error, if one of ours is there.
pub(crate) fn refusal_of(error: &AnyError) -> Option<Refusal> {
    let found = error.chain().find_map(|cause| cause.downcast_ref::<Failed>());
    found.map(|failed| failed.refusal.clone())
}

/// One level of nesting, given back when it ends in whatever way.
struct Level<'a>(&'a Cell<u32>);

impl<'a> Level<'a> {
    fn enter(depth: &'a Cell<u32>, max: u32) -> Option<Level<'a>> {
        let deeper = depth.get().saturating_add(1);
        (deeper <= max).then(|| {
            depth.set(deeper);
            Level(depth)
        })
    }
}

impl Drop for Level<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// The index of the transaction in its block, for contracts that ask; none in queries and simulations.
pub(crate) type Place = Rc<Cell<Option<u32>>>;

/// A contract's code as it runs on this chain.
pub(crate) struct Guarded {
    pub(crate) code: Box<dyn Contract<Empty>>,
    pub(crate) place: Place,
}

impl Guarded {
    fn env(&self, env: Env) -> Env {
        let transaction = self.place.get().map(|index| TransactionInfo { index });
        Env { transaction, ..env }
    }
}

fn guarded<T>(entry: Code, in_reply: bool, run: impl FnOnce() -> AnyResult<T>) -> AnyResult<T> {
    let (refusal, readable) = match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(value)) => return Ok(value),
        Ok(Err(error)) => (entry.with(error), true),
        Err(panic) => (aborted(panic.as_ref()), false),
    };
    Err(AnyError::new(Raised {
        refusal,
        in_reply,
        readable,
    }))
}

/// The words of a real chain for a contract that panicked.
fn aborted(panic: &(dyn Any + Send)) -> Refusal {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    let text = text.unwrap_or_else(|| "no message".to_owned());
    code::VM.with(format!(
        "Error calling the VM: Error executing Wasm: Wasmer runtime error: RuntimeError: Aborted: panicked at '{text}'"
    ))
}

impl Contract<Empty> for Guarded {
    fn instantiate(&self, deps: DepsMut, env: Env, info: MessageInfo, msg: Vec<u8>) -> AnyResult<Response> {
        let run = || self.code.instantiate(deps, self.env(env), info, msg);
        guarded(code::INSTANTIATE_FAILED, false, run)
    }

    fn execute(&self, deps: DepsMut, env: Env, info: MessageInfo, msg: Vec<u8>) -> AnyResult<Response> {
        let run = || self.code.execute(deps, self.env(env), info, msg);
        guarded(code::EXECUTE_FAILED, false, run)
    }

    fn query(&self, deps: Deps, env: Env, msg: Vec<u8>) -> AnyResult<Binary> {
        let env = Env {
            transaction: None,
            ..env
        };
        match catch_unwind(AssertUnwindSafe(|| self.code.query(deps, env, msg))) {
            Ok(answer) => answer,
            Err(panic) => Err(AnyError::msg(aborted(panic.as_ref()).log)),
        }
    }

    fn reply(&self, deps: DepsMut, env: Env, mut msg: Reply) -> AnyResult<Response> {
        if let SubMsgResult::Err(text) = &mut msg.result {
            *text = match text.split_once(END_OF_REASON) {
                Some((reason, _)) => reason.to_owned(),
                None => UNDEFINED.to_owned(),
            };
        }
        let run = || self.code.reply(deps, self.env(env), msg);
        guarded(code::EXECUTE_FAILED, true, run)
    }

    fn sudo(&self, deps: DepsMut, env: Env, msg: Vec<u8>) -> AnyResult<Response> {
        guarded(code::EXECUTE_FAILED, false, || self.code.sudo(deps, self.env(env), msg))
    }

    fn migrate(&self, deps: DepsMut, env: Env, msg: Vec<u8>) -> AnyResult<Response> {
        guarded(code::MIGRATE_FAILED, false, || {
            self.code.migrate(deps, self.env(env), msg)
        })
    }

    fn checksum(&self) -> Option<Checksum> {
        self.code.checksum()
    }
}

/// Contracts and the calls between them.
pub(crate) struct Contracts {
    keeper: WasmKeeper<Empty, Empty>,
    calls: Cell<u32>,
    queries: Cell<u32>,
}

type Router<'a> = &'a dyn CosmosRouter<ExecC = Empty, QueryC = Empty>;

impl Contracts {
    pub(crate) fn new(keeper: WasmKeeper<Empty, Empty>) -> Contracts {
        let (calls, queries) = (Cell::new(0), Cell::new(0));
        Contracts { keeper, calls, queries }
    }

    /// Refuses what wasmd refuses before a contract runs.
    fn check(&self, api: &dyn Api, storage: &dyn Storage, sender: &Addr, message: &WasmMsg) -> Result<(), Refusal> {
        match message {
            WasmMsg::Migrate {
                contract_addr,
                new_code_id,
                ..
            } => {
                self.check_admin(storage, sender, contract_addr, "can not migrate")?;
                if self.keeper.contract_code(*new_code_id).is_err() {
                    return Err(code::INVALID_REQUEST.with("unknown code"));
                }
            }
            WasmMsg::UpdateAdmin { contract_addr, admin } => {
                if let Err(error) = api.addr_validate(admin) {
                    return Err(code::INVALID_ADDRESS.with(format!("new admin: {error}")));
                }
                self.check_admin(storage, sender, contract_addr, "can not modify contract")?;
            }
            WasmMsg::ClearAdmin { contract_addr } => {
                self.check_admin(storage, sender, contract_addr, "can not modify contract")?;
            }
            WasmMsg::Execute { contract_addr, .. } => {
                let address = Addr::unchecked(contract_addr);
                let known = self.keeper.contract_data(storage, &address);
                known.map_err(|_| code::NO_SUCH_CONTRACT.with(format!("address {contract_addr}")))?;
            }
            WasmMsg::Instantiate {
                code_id, label, admin, ..
            }
            | WasmMsg::Instantiate2 {
                code_id, label, admin, ..
            } => {
                if label.is_empty() {
                    return Err(code::EMPTY.with("label"));
                }
                if let Some(Err(error)) = admin.as_ref().map(|admin| api.addr_validate(admin)) {
                    return Err(code::INVALID_ADDRESS.with(format!("admin: {error}")));
                }
                if self.keeper.contract_code(*code_id).is_err() {
                    return Err(code::NO_SUCH_CODE.with(format!("code id {code_id}")));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Who may give a contract other code, and another admin: its admin.
    fn check_admin(&self, storage: &dyn Storage, sender: &Addr, contract: &str, what: &str) -> Result<(), Refusal> {
        let known = self.keeper.contract_data(storage, &Addr::unchecked(contract));
        match known {
            Err(_) => Err(code::INVALID_REQUEST.with("unknown contract")),
            Ok(data) if data.admin.as_ref() != Some(sender) => Err(code::UNAUTHORIZED.with(what)),
            Ok(_) => Ok(()),
        }
    }

    fn run(
        &self,
        api: &dyn Api,
        storage: &mut dyn Storage,
        router: Router<'_>,
        block: &BlockInfo,
        sender: Addr,
        msg: WasmMsg,
    ) -> AnyResult<AppResponse> {
        let _level = Level::enter(&self.calls, CALLS_MAX)
            .ok_or_else(|| failed(code::CALL_DEPTH.with(format!("more than {CALLS_MAX} calls"))))?;
        self.check(api, storage, &sender, &msg).map_err(failed)?;
        let (receiver, funds) = riding(&msg);
        check_funds(&sender, &funds, |denom| {
            balance(api, storage, router, block, &sender, denom)
        })
        .map_err(failed)?;
        let entry = match &msg {
            WasmMsg::Instantiate { .. } | WasmMsg::Instantiate2 { .. } => code::INSTANTIATE_FAILED,
            WasmMsg::Migrate { .. } => code::MIGRATE_FAILED,
            _ => code::EXECUTE_FAILED,
        };
        let from = sender.to_string();
        let own = shape::of_code(&msg);
        let keeper = &self.keeper;
        let run = AssertUnwindSafe(|| keeper.execute(api, storage, router, block, sender, msg));
        let mut response = match catch_unwind(run) {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(AnyError::new(lifted(&error, entry))),
            Err(panic) => return Err(failed(aborted(panic.as_ref()))),
        };
        if let Some(own) = own {
            // The keeper's own comes first, if there is one, with its attributes the other way round.
            if response.events.first().is_some_and(|event| event.ty == own.ty) {
                response.events.remove(0);
            }
            response.events.insert(0, own);
        }
        let made = || {
            let made = response.events.iter().find(|event| event.ty == "instantiate");
            made.and_then(|event| shape::attribute(event, "_contract_address"))
                .map(str::to_owned)
        };
        if let Some(receiver) = receiver.or_else(made).filter(|_| !funds.is_empty()) {
            let moved = shape::moved(&from, &receiver, &shape::text(&funds));
            response.events.splice(0..0, moved);
        }
        if self.calls.get() > 1 {
            shape::sort(&mut response.events);
        }
        Ok(response)
    }
}

/// Coins that ride on a message, and where they go when that is known before.
fn riding(message: &WasmMsg) -> (Option<String>, Vec<Coin>) {
    match message {
        WasmMsg::Execute {
            contract_addr, funds, ..
        } => (Some(contract_addr.clone()), funds.clone()),
        WasmMsg::Instantiate { funds, .. } | WasmMsg::Instantiate2 { funds, .. } => (None, funds.clone()),
        _ => (None, vec![]),
    }
}

/// The failure of a call, out of what came up from inside it.
fn lifted(error: &AnyError, entry: Code) -> Failed {
    // An execution hands on what its messages have failed with; the others say that it was not they.
    let dispatch = if entry == code::EXECUTE_FAILED {
        ""
    } else {
        "dispatch: "
    };
    let below = error.chain().find_map(|cause| cause.downcast_ref::<Failed>());
    if let Some(Failed { refusal, .. }) = below {
        return nested(refusal.clone(), dispatch);
    }
    match error.chain().find_map(|cause| cause.downcast_ref::<Raised>()) {
        Some(raised) if raised.in_reply => nested(raised.refusal.clone(), &format!("{dispatch}reply: ")),
        Some(Raised { refusal, readable, .. }) => Failed {
            refusal: refusal.clone(),
            readable: *readable,
        },
        // A check of cw-multi-test's own, or a module that this chain does not have.
        None => Failed {
            refusal: entry.with(error.root_cause()),
            readable: false,
        },
    }
}

fn nested(mut refusal: Refusal, place: &str) -> Failed {
    refusal.log.insert_str(0, place);
    let readable = false;
    Failed { refusal, readable }
}

fn balance(
    api: &dyn Api,
    storage: &dyn Storage,
    router: Router<'_>,
    block: &BlockInfo,
    owner: &Addr,
    denom: &str,
) -> u128 {
    let query = BankQuery::Balance {
        address: owner.to_string(),
        denom: denom.to_owned(),
    };
    let answer = router.query(api, storage, block, QueryRequest::Bank(query));
    let answer = answer
        .ok()
        .and_then(|answer| cosmwasm_std::from_json::<BalanceResponse>(answer).ok());
    answer.map_or(0, |balance| balance.amount.amount.u128())
}

/// Refuses coins that are none, or that their owner does not have.
fn check_funds(owner: &Addr, coins: &[Coin], balance: impl Fn(&str) -> u128) -> Result<(), Refusal> {
    for (place, Coin { denom, amount }) in (1usize..).zip(coins) {
        let again = coins.iter().skip(place).any(|other| other.denom == *denom);
        if amount.is_zero() || again {
            return Err(code::INVALID_COINS.with(shape::text(coins)));
        }
        let balance = balance(denom);
        if balance < amount.u128() {
            let log = format!("spendable balance {balance}{denom} is smaller than {amount}{denom}");
            tracing::debug!(%owner, log, "coins that are not there");
            return Err(code::INSUFFICIENT_FUNDS.with(log));
        }
    }
    Ok(())
}

impl Wasm<Empty, Empty> for Contracts {
    fn execute(
        &self,
        api: &dyn Api,
        storage: &mut dyn Storage,
        router: Router<'_>,
        block: &BlockInfo,
        sender: Addr,
        msg: WasmMsg,
    ) -> AnyResult<AppResponse> {
        self.run(api, storage, router, block, sender, msg)
    }

    fn query(
        &self,
        api: &dyn Api,
        storage: &dyn Storage,
        querier: &dyn Querier,
        block: &BlockInfo,
        request: WasmQuery,
    ) -> AnyResult<Binary> {
        let _level = Level::enter(&self.queries, QUERIES_MAX)
            .ok_or_else(|| AnyError::msg(code::QUERY_DEPTH.with(format!("more than {QUERIES_MAX} queries")).log))?;
        // A contract that asks learns that it was another one that refused.
        let by_a_contract = self.queries.get() > 1 || self.calls.get() > 0;
        let asked = match &request {
            WasmQuery::Smart { contract_addr, .. } if by_a_contract => Some(Addr::unchecked(contract_addr)),
            _ => None,
        };
        let refuses = asked.is_some_and(|asked| self.keeper.contract_data(storage, &asked).is_ok());
        answered(|| self.keeper.query(api, storage, querier, block, request)).map_err(|error| match refuses {
            true => AnyError::msg(code::QUERY_FAILED.with(error.root_cause()).log),
            false => error,
        })
    }

    fn sudo(
        &self,
        api: &dyn Api,
        storage: &mut dyn Storage,
        router: Router<'_>,
        block: &BlockInfo,
        msg: WasmSudo,
    ) -> AnyResult<AppResponse> {
        self.keeper.sudo(api, storage, router, block, msg)
    }

    fn store_code(&mut self, creator: Addr, code: Box<dyn Contract<Empty>>) -> u64 {
        self.keeper.store_code(creator, code)
    }

    fn store_code_with_id(&mut self, creator: Addr, code_id: u64, code: Box<dyn Contract<Empty>>) -> AnyResult<u64> {
        self.keeper.store_code_with_id(creator, code_id, code)
    }

    fn duplicate_code(&mut self, code_id: u64) -> AnyResult<u64> {
        self.keeper.duplicate_code(code_id)
    }

    fn contract_data(&self, storage: &dyn Storage, address: &Addr) -> AnyResult<ContractData> {
        self.keeper.contract_data(storage, address)
    }

    fn dump_wasm_raw(&self, storage: &dyn Storage, address: &Addr) -> Vec<Record> {
        self.keeper.dump_wasm_raw(storage, address)
    }
}

/// A query that cw-multi-test leaves unimplemented is one that this chain refuses.
fn answered(query: impl FnOnce() -> AnyResult<Binary>) -> AnyResult<Binary> {
    let answer = catch_unwind(AssertUnwindSafe(query));
    answer.unwrap_or_else(|panic| Err(AnyError::msg(aborted(panic.as_ref()).log)))
}

/// The bank.
#[derive(Default)]
pub(crate) struct Coins(pub(crate) BankKeeper);

impl Bank for Coins {}

impl Coins {
    fn balance(&self, api: &dyn Api, storage: &dyn Storage, block: &BlockInfo, owner: &Addr, denom: &str) -> u128 {
        let query = BankQuery::Balance {
            address: owner.to_string(),
            denom: denom.to_owned(),
        };
        let nobody = NoQuerier;
        let answer = self.0.query(api, storage, &nobody, block, query);
        let answer = answer
            .ok()
            .and_then(|answer| cosmwasm_std::from_json::<BalanceResponse>(answer).ok());
        answer.map_or(0, |balance| balance.amount.amount.u128())
    }
}

/// The bank asks nobody.
struct NoQuerier;

impl Querier for NoQuerier {
    fn raw_query(&self, _: &[u8]) -> cosmwasm_std::QuerierResult {
        let kind = "any".to_owned();
        cosmwasm_std::SystemResult::Err(cosmwasm_std::SystemError::UnsupportedRequest { kind })
    }
}

impl Module for Coins {
    type ExecT = BankMsg;
    type QueryT = BankQuery;
    type SudoT = BankSudo;

    fn execute<ExecC, QueryC>(
        &self,
        api: &dyn Api,
        storage: &mut dyn Storage,
        router: &dyn CosmosRouter<ExecC = ExecC, QueryC = QueryC>,
        block: &BlockInfo,
        sender: Addr,
        msg: BankMsg,
    ) -> AnyResult<AppResponse>
    where
        ExecC: CustomMsg + DeserializeOwned + 'static,
        QueryC: CustomQuery + DeserializeOwned + 'static,
    {
        let (amount, events) = match &msg {
            BankMsg::Send { to_address, amount } => {
                if let Err(reason) = addresses::check(to_address) {
                    return Err(failed(
                        code::INVALID_ADDRESS.with(format!("invalid to address: {reason}")),
                    ));
                }
                let moved = shape::moved(sender.as_str(), to_address, &shape::text(amount));
                (amount, moved.to_vec())
            }
            BankMsg::Burn { amount } => (
                amount,
                shape::burnt(sender.as_str(), machine::module_address("wasm")?.as_str(), amount),
            ),
            other => {
                let reason = format!("this chain does not run {other:?}");
                return Err(failed(code::UNKNOWN_REQUEST.with(reason)));
            }
        };
        if amount.is_empty() {
            return Err(failed(code::INVALID_COINS.with("an amount of nothing")));
        }
        check_funds(&sender, amount, |denom| {
            self.balance(api, storage, block, &sender, denom)
        })
        .map_err(failed)?;
        let response = self.0.execute(api, storage, router, block, sender, msg)?;
        Ok(AppResponse { events, ..response })
    }

    fn query(
        &self,
        api: &dyn Api,
        storage: &dyn Storage,
        querier: &dyn Querier,
        block: &BlockInfo,
        request: BankQuery,
    ) -> AnyResult<Binary> {
        answered(|| self.0.query(api, storage, querier, block, request))
    }

    fn sudo<ExecC, QueryC>(
        &self,
        api: &dyn Api,
        storage: &mut dyn Storage,
        router: &dyn CosmosRouter<ExecC = ExecC, QueryC = QueryC>,
        block: &BlockInfo,
        msg: BankSudo,
    ) -> AnyResult<AppResponse>
    where
        ExecC: CustomMsg + DeserializeOwned + 'static,
        QueryC: CustomQuery + DeserializeOwned + 'static,
    {
        self.0.sudo(api, storage, router, block, msg)
    }
}
