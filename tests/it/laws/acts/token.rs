//! FUNC itself.

use cosmwasm_std::{to_json_binary, Binary};
use cw20::{Cw20ExecuteMsg as Token, Expiration, Logo};
use fxn_tests::FUNC;
use schema::{escrow, registry, staking};

use super::{person, Act, Msg};
use crate::laws::{dice::Dice, world::World};

fn amount(world: &World, dice: &mut Dice, name: &str) -> u128 {
    let wallet = world.oracle.wallet(&world.addr(name));
    let part = [FUNC, wallet / 10, wallet, 1][dice.roll(4)];
    dice.around(part)
}

pub(super) fn transfer(world: &World, dice: &mut Dice) -> Act {
    let name = person(dice);
    let msg = Token::Transfer {
        recipient: world.addr(person(dice)).into_string(),
        amount: amount(world, dice, name).into(),
    };
    world.act(name, Msg::Token(msg))
}

pub(super) fn burn(world: &World, dice: &mut Dice) -> Act {
    let name = person(dice);
    let amount = dice.around(FUNC).into();
    world.act(name, Msg::Token(Token::Burn { amount }))
}

/// Any hook, or no hook at all, to any contract.
fn hook(world: &World, dice: &mut Dice) -> Binary {
    let json = match dice.roll(9) {
        0 | 6..=8 => to_json_binary(&escrow::ReceiveMsg::Deposit {
            beneficiary: dice.rarely(3).then(|| world.addr(person(dice)).into_string()),
        }),
        1 => to_json_binary(&staking::ReceiveMsg::Bond {}),
        2 => to_json_binary(&registry::ReceiveMsg::ClaimNamespace {
            namespace: "squatted".parse().unwrap(),
        }),
        3 => to_json_binary(&escrow::ReceiveMsg::Penalty {
            beneficiary: world.addr("mallory").into_string(),
            item: super::item(world, dice),
            keeper: None,
        }),
        4 => return Binary::from(b"{\"deposit\":{\"beneficiary\":\"\"}}"),
        _ => return Binary::default(),
    };
    json.unwrap()
}

pub(super) fn send(world: &World, dice: &mut Dice) -> Act {
    let name = person(dice);
    let amount = [amount(world, dice, name), dice.around(10 * FUNC)][dice.roll(2)];
    let msg = Token::Send {
        contract: dice.pick(&world.oracle.contracts.all()).to_string(),
        amount: amount.into(),
        msg: hook(world, dice),
    };
    world.act(name, Msg::Token(msg))
}

fn expiration(world: &World, dice: &mut Dice) -> Option<Expiration> {
    let (_, height) = world.clock();
    if dice.rarely(4) {
        return Some(Expiration::AtHeight(height));
    }
    dice.rarely(3).then_some(Expiration::AtHeight(height + 20))
}

pub(super) fn increase_allowance(world: &World, dice: &mut Dice) -> Act {
    let msg = Token::IncreaseAllowance {
        spender: world.addr(person(dice)).into_string(),
        amount: dice.around(FUNC).into(),
        expires: expiration(world, dice),
    };
    world.act(["dora", "anna", "mallory"][dice.roll(3)], Msg::Token(msg))
}

/// Owner and spender of an allowance that was given, or of none.
fn allowance(world: &World, dice: &mut Dice) -> (String, &'static str) {
    let live = world.oracle.allowances.iter().filter(|(_, allowed)| **allowed > 0);
    let given: Vec<_> = live.map(|(pair, _)| pair.clone()).collect();
    match dice.maybe(&given) {
        Some((owner, spender)) if !dice.rarely(6) => (owner.into_string(), super::name_of(world, &spender)),
        _ => (world.addr("dora").into_string(), "mallory"),
    }
}

pub(super) fn decrease_allowance(world: &World, dice: &mut Dice) -> Act {
    let (owner, spender) = allowance(world, dice);
    let msg = Token::DecreaseAllowance {
        spender: world.addr(spender).into_string(),
        amount: dice.around(FUNC / 2).into(),
        expires: expiration(world, dice),
    };
    Act {
        sender: cosmwasm_std::Addr::unchecked(owner),
        ..world.act("dora", Msg::Token(msg))
    }
}

pub(super) fn transfer_from(world: &World, dice: &mut Dice) -> Act {
    let (owner, spender) = allowance(world, dice);
    let msg = Token::TransferFrom {
        owner,
        recipient: world.addr(person(dice)).into_string(),
        amount: dice.around(FUNC / 3).into(),
    };
    world.act(spender, Msg::Token(msg))
}

pub(super) fn send_from(world: &World, dice: &mut Dice) -> Act {
    let (owner, spender) = allowance(world, dice);
    let contracts = &world.oracle.contracts;
    let (contract, msg) = if dice.rarely(3) {
        (dice.pick(&contracts.all()).clone(), hook(world, dice))
    } else {
        let deposit = escrow::ReceiveMsg::Deposit { beneficiary: None };
        (contracts.royalty_escrow.clone(), to_json_binary(&deposit).unwrap())
    };
    let msg = Token::SendFrom {
        owner,
        contract: contract.into_string(),
        amount: dice.around(FUNC / 3).into(),
        msg,
    };
    world.act(spender, Msg::Token(msg))
}

pub(super) fn burn_from(world: &World, dice: &mut Dice) -> Act {
    let (owner, spender) = allowance(world, dice);
    let amount = dice.around(FUNC / 3).into();
    world.act(spender, Msg::Token(Token::BurnFrom { owner, amount }))
}

/// What nobody may, not even the one who began it all.
pub(super) fn forbidden(world: &World, dice: &mut Dice) -> Act {
    let name = ["faucet", "admin", "mallory"][dice.roll(3)];
    let own = world.addr(name).into_string();
    let msg = match dice.roll(4) {
        0 => Token::Mint {
            recipient: own,
            amount: dice.around(FUNC).into(),
        },
        1 => Token::UpdateMinter { new_minter: Some(own) },
        2 => Token::UpdateMarketing {
            project: Some("p".repeat(300)),
            description: None,
            marketing: Some(own),
        },
        _ => Token::UploadLogo(Logo::Url("https://function.example/logo.svg".to_owned())),
    };
    world.act(name, Msg::Token(msg))
}
