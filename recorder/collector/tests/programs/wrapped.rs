//! Tests the wrappers that Rust programs use (functions that allocate for their caller). Each function
//! `case_NAME` calls one wrapper, and edleak must name `case_NAME` as the site of the allocation.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;

unsafe extern "C" {
    fn arm();
}

fn armed<T>(value: T) -> T {
    // SAFETY: `arm` only sets a flag.
    unsafe { arm() };
    value
}

#[derive(Clone)]
struct Item([u64; 20]);

macro_rules! cases {
    ($($name:ident $prepare:expr => $run:expr;)*) => {
        $(
            #[inline(never)]
            fn $name() {
                let mut state = black_box($prepare);
                armed(());
                #[allow(clippy::redundant_closure_call)]
                black_box(($run)(&mut state));
                black_box(&mut state);
            }
        )*

        fn main() {
            let wanted = format!("case_{}", std::env::args().nth(1).unwrap_or_default());
            $(if wanted == stringify!($name) { $name(); })*
            std::process::exit(1);
        }
    };
}

const TEXT: &str = "some text";

cases! {
    case_box () => |_: &mut ()| Box::new(Item([black_box(3); 20]));
    case_vec_push Vec::<u32>::new() => |v: &mut Vec<u32>| v.push(3);
    case_vec_growth vec![Item([1; 20]); 4] => |v: &mut Vec<Item>| v.push(Item([2; 20]));
    case_vec_with_capacity 30_usize => |n: &mut usize| Vec::<u16>::with_capacity(*n);
    case_vec_macro 30_usize => |n: &mut usize| vec![7_u8; *n];
    case_vec_clone vec![1_u32; 30] => |v: &mut Vec<u32>| v.clone();
    case_vec_of_strings vec![String::from(TEXT); 3] => |v: &mut Vec<String>| v.clone();
    case_vec_collect 30_u32 => |n: &mut u32| (0..*n).map(|i| i * i).collect::<Vec<_>>();
    case_vec_extend vec![1_u32; 4] => |v: &mut Vec<u32>| v.extend(0..300);
    case_to_vec [1_u8; 50] => |a: &mut [u8; 50]| a[..].to_vec();
    case_vecdeque VecDeque::<u32>::new() => |d: &mut VecDeque<u32>| d.push_back(3);
    case_hashmap HashMap::<u32, Item>::new() => |m: &mut HashMap<u32, Item>| m.insert(3, Item([4; 20]));
    case_hashmap_entry HashMap::<u32, u64>::new() =>
        |m: &mut HashMap<u32, u64>| *m.entry(3).or_default() += 1;
    case_hashset_collect 30_u32 => |n: &mut u32| (0..*n).collect::<HashSet<_>>();
    case_btreemap BTreeMap::<u32, Item>::new() => |m: &mut BTreeMap<u32, Item>| m.insert(3, Item([4; 20]));
    case_string_push String::new() => |s: &mut String| s.push_str(TEXT);
    case_string_from TEXT => |s: &mut &str| String::from(*s);
    case_to_string 12345_u32 => |n: &mut u32| n.to_string();
    case_format 12345_u32 => |n: &mut u32| format!("{n} and {TEXT}");
    case_join vec![TEXT; 4] => |v: &mut Vec<&str>| v.join(", ");
    case_rc () => |_: &mut ()| Rc::new(Item([black_box(3); 20]));
    case_arc_str TEXT => |s: &mut &str| Arc::<str>::from(*s);
    case_path TEXT => |s: &mut &str| std::path::Path::new("/tmp").join(*s);
    case_read_file "/proc/self/status" => |s: &mut &str| std::fs::read_to_string(*s);
    case_boxed_closure [3_u64; 20] =>
        |a: &mut [u64; 20]| { let a = *a; Box::new(move || a[3]) as Box<dyn Fn() -> u64> };
}
