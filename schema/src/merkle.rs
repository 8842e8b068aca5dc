//! Merkle roots as in RFC 6962 section 2.1, over sha256.
//!
//! A leaf is the bytes of one row: raw for a job's input, with its header for a boundary or an output. Leaves and nodes are hashed
//! with different prefixes, so a node can never pass for a row.

use sha2::{Digest as _, Sha256};

use crate::Digest;

/// Hash of one row.
pub fn leaf(row: &[u8]) -> Digest {
    Digest(Sha256::new().chain_update([0]).chain_update(row).finalize().into())
}

/// Root over rows in order. No rows: sha256 of nothing.
pub fn root<T: AsRef<[u8]>>(rows: impl IntoIterator<Item = T>) -> Digest {
    let leaves: Vec<Digest> = rows.into_iter().map(|row| leaf(row.as_ref())).collect();
    subtree(&leaves)
}

fn subtree(leaves: &[Digest]) -> Digest {
    match leaves {
        [] => Digest::of(&[]),
        [only] => *only,
        _ => {
            // The left part is the largest power of two below the whole, as the RFC splits.
            let middle = leaves.len().div_ceil(2).next_power_of_two();
            let (left, right) = leaves.split_at(middle);
            node(subtree(left), subtree(right))
        }
    }
}

fn node(left: Digest, right: Digest) -> Digest {
    Digest(
        Sha256::new()
            .chain_update([1])
            .chain_update(left.0)
            .chain_update(right.0)
            .finalize()
            .into(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Published test leaves of certificate-transparency implementations of RFC 6962, with the root after each one.
    #[test]
    fn roots_are_those_of_the_rfc() {
        let leaves: Vec<Vec<u8>> = [
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        ]
        .iter()
        .map(|text| hex::decode(text).unwrap())
        .collect();
        let roots = [
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
            "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
            "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
            "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
            "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
            "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
            "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
            "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
        ];
        for (count, expected) in roots.iter().enumerate() {
            assert_eq!(root(&leaves[..=count]).to_string(), *expected, "{} leaves", count + 1);
        }
        assert_eq!(root(Vec::<Vec<u8>>::new()), Digest::of(b""));
    }
}
