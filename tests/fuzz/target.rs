//! One door: how long it is knocked at, and what becomes of an input that breaks it.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use fxn_tests::program::root;
use rand::{rngs::StdRng, SeedableRng};
use schema::Digest;

use crate::{mutate::changed, MEMORY};

/// One target at a time: the memory of a process is counted as a whole.
static TURN: Mutex<()> = Mutex::new(());
/// No input may keep anybody busy for longer, on a machine that does other things too.
const TIME_MAX: Duration = Duration::from_secs(20);
/// Times that an input must fail.
const SURE: usize = 3;
/// How long a failing input is made smaller.
const SHRINKING: Duration = Duration::from_secs(5);

fn number(variable: &str, absent: u64) -> u64 {
    std::env::var(variable).map_or(absent, |text| text.parse().unwrap())
}

/// A door to knock at.
pub(crate) struct Target {
    /// Also the name of its corpus.
    pub(crate) name: &'static str,
    /// Inputs that are accepted.
    pub(crate) samples: Vec<Vec<u8>>,
    /// Most memory that one input may take, in bytes.
    pub(crate) memory: usize,
}

impl Target {
    fn corpus(&self) -> PathBuf {
        root().join("tests/fuzz/corpus").join(self.name)
    }

    /// Knocks for as long as there is time. `run` panics if something that must hold does not.
    pub(crate) fn attack(self, mut run: impl FnMut(&[u8])) {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let (seconds, seed) = (number("FXN_FUZZ_SECONDS", 1), number("FXN_SEED", 1));
        let kept = fs::read_dir(self.corpus()).into_iter().flatten();
        let kept = kept.map(|entry| fs::read(entry.unwrap().path()).unwrap());
        let known: Vec<Vec<u8>> = kept.chain(self.samples.iter().cloned()).collect();
        for input in &known {
            self.try_input(&mut run, input, seed);
        }
        let mut random = StdRng::seed_from_u64(seed);
        let (until, mut inputs) = (Instant::now() + Duration::from_secs(seconds), known.len());
        while Instant::now() < until {
            let input = changed(&known, &mut random);
            self.try_input(&mut run, &input, seed);
            inputs += 1;
        }
        eprintln!("{}: {inputs} inputs in {seconds} s, FXN_SEED={seed}", self.name);
    }

    fn try_input(&self, run: &mut impl FnMut(&[u8]), input: &[u8], seed: u64) {
        // What others of this process do takes memory too, but not every time.
        let Some(reason) = (0..SURE)
            .map(|_| self.once(run, input).err())
            .take_while(Option::is_some)
            .nth(SURE - 1)
        else {
            return;
        };
        let reason = reason.unwrap_or_default();
        let small = self.smaller(run, input.to_vec());
        let folder = self.corpus();
        fs::create_dir_all(&folder).unwrap();
        let name: String = Digest::of(&small).to_string().chars().take(16).collect();
        fs::write(folder.join(name), &small).unwrap();
        let shown: String = small.escape_ascii().to_string().chars().take(2_000).collect();
        panic!(
            "{}: {reason}\nFXN_SEED={seed}, {} bytes: b\"{shown}\"",
            self.name,
            small.len()
        );
    }

    /// Why the input breaks it, if it does.
    fn once(&self, run: &mut impl FnMut(&[u8]), input: &[u8]) -> Result<(), String> {
        MEMORY.reset_peak_usage();
        let (before, began) = (MEMORY.current_usage(), Instant::now());
        let result = panic::catch_unwind(AssertUnwindSafe(|| run(input)));
        let (took, memory) = (began.elapsed(), MEMORY.peak_usage().saturating_sub(before));
        match result {
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                Err(format!("it panicked: {}", text.unwrap_or("without a word")))
            }
            Ok(()) if memory > self.memory => {
                Err(format!("it took {memory} bytes, at most {} are allowed", self.memory))
            }
            Ok(()) if took > TIME_MAX => Err(format!("it took {took:?}")),
            Ok(()) => Ok(()),
        }
    }

    /// The input without every piece that is not needed to break it.
    fn smaller(&self, run: &mut impl FnMut(&[u8]), mut input: Vec<u8>) -> Vec<u8> {
        let until = Instant::now() + SHRINKING;
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let mut piece = input.len() / 2;
        while piece > 0 && Instant::now() < until {
            let mut at = 0;
            while at < input.len() && Instant::now() < until {
                let mut without = input.clone();
                without.drain(at..(at + piece).min(input.len()));
                match self.once(run, &without) {
                    Err(_) => input = without,
                    Ok(()) => at += piece,
                }
            }
            piece /= 2;
        }
        panic::set_hook(hook);
        input
    }
}

#[test]
fn a_target_that_breaks_is_found_made_smaller_and_kept() {
    let folder = root().join("tests/fuzz/corpus/self-test");
    let _ = fs::remove_dir_all(&folder);
    let target = Target {
        name: "self-test",
        samples: vec![b"{\"length\": 10, \"content\": \"abc\"}".to_vec()],
        memory: 1 << 20,
    };
    let broken = panic::catch_unwind(AssertUnwindSafe(|| {
        target.attack(|bytes| assert!(!bytes.contains(&0xff) || bytes.len() < 8));
    }));
    let reason = *broken.unwrap_err().downcast::<String>().unwrap();
    assert!(
        reason.contains("self-test: it panicked") && reason.contains("8 bytes"),
        "{reason}"
    );
    let kept: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .collect();
    assert!(kept.len() == 1 && kept[0].len() == 8 && kept[0].contains(&0xff));
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_target_that_takes_too_much_memory_is_found() {
    let target = Target {
        name: "memory-self-test",
        samples: vec![vec![1]],
        memory: 1 << 20,
    };
    let broken = panic::catch_unwind(AssertUnwindSafe(|| {
        target.attack(|bytes| drop(vec![1_u8; bytes.len() << 22]));
    }));
    let reason = *broken.unwrap_err().downcast::<String>().unwrap();
    fs::remove_dir_all(root().join("tests/fuzz/corpus/memory-self-test")).unwrap();
    assert!(reason.contains("at most 1048576 are allowed"), "{reason}");
}
