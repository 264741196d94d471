//! Which types are sets without an order.

/// Whether the type is a set whose order changes from one run to the next, itself or behind references and smart
/// pointers. Serde serializes it as it does a list, so the type's name is all that tells.
pub(super) fn is_unordered<T: ?Sized>() -> bool {
    let mut name = std::any::type_name::<T>();
    loop {
        name = name.trim_start_matches("&mut ").trim_start_matches('&');
        // The own order of a tuple, an array or a slice matters, whatever it begins with.
        if name.starts_with(['(', '[']) {
            return false;
        }
        let (path, arguments) = name.split_once('<').unwrap_or((name, ""));
        let of = path.rsplit("::").next().unwrap_or_default();
        match of {
            "HashSet" | "AHashSet" | "DashSet" => return true,
            "Arc" | "Box" | "Cow" | "Mutex" | "Option" | "Rc" | "RefCell" | "Reverse"
            | "RwLock" | "Wrapping" => {
                name = arguments;
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;
    use std::collections::{BTreeSet, HashMap, HashSet};
    use std::sync::Arc;

    use super::*;

    type Set = HashSet<String>;

    #[test]
    fn sets_are_known_by_their_names() {
        assert!(is_unordered::<Set>());
        assert!(is_unordered::<&&Set>());
        assert!(is_unordered::<Option<Arc<Set>>>());
        assert!(is_unordered::<Cow<'static, HashSet<u8>>>());
        assert!(!is_unordered::<BTreeSet<Set>>());
        assert!(!is_unordered::<Vec<Set>>());
        assert!(!is_unordered::<HashMap<String, Set>>());
        assert!(!is_unordered::<str>());
        assert!(!is_unordered::<(Set, u8, u8)>());
        assert!(!is_unordered::<[Set; 2]>());
        assert!(!is_unordered::<&[Set]>());
        assert!(!is_unordered::<Option<(Set, u8)>>());
    }
}
