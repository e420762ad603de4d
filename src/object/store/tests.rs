//! The store by itself.

use std::time::Duration;

use super::*;
use crate::object::{Attributes, Material};

fn object(label: &str, id: &str, unique: Option<&str>, owner: Option<CK_ULONG>) -> Object {
    let mut attributes = Attributes::default();
    attributes.set_ulong(CKA_CLASS, CKO_SECRET_KEY).set(CKA_LABEL, label).set(CKA_ID, id);
    if let Some(unique) = unique {
        attributes.set(CKA_UNIQUE_ID, unique);
    }
    Object { attributes, material: Material::None, owner }
}

fn labelled(label: &str) -> Wanted {
    vec![(CKA_LABEL, label.into())]
}

fn find(store: &Store, wanted: &Wanted) -> Vec<CK_OBJECT_HANDLE> {
    store.find(wanted, |_| true)
}

#[test]
fn a_name_that_changes_keeps_old_handles_and_shows_the_new() {
    let store = Store::new(vec![], 1);
    let first =
        store.put_name("Web", Found::default(), vec![object("Web", "1", Some("Web/1#sec"), None)]);
    assert_eq!(find(&store, &labelled("Web")), first);
    let second =
        store.put_name("web", Found::default(), vec![object("Web", "2", Some("Web/2#sec"), None)]);
    assert_ne!(first, second);
    assert_eq!(find(&store, &labelled("Web")), second, "names are compared without case");
    assert!(find(&store, &vec![(CKA_ID, b"1".to_vec())]).is_empty());
    assert!(store.object(first[0]).is_ok(), "an open handle stays with its version");
    let again =
        store.put_name("web", Found::default(), vec![object("Web", "1", Some("Web/1#sec"), None)]);
    assert_eq!(again, first, "an object that comes back has the handle it had");
}

#[test]
fn a_listing_hides_what_is_gone() {
    let store = Store::new(vec![], 1);
    let kept = store.put_name("a", Found::default(), vec![object("a", "1", None, None)]);
    let gone = store.put_name("b", Found::default(), vec![object("b", "2", None, None)]);
    let begun = Instant::now();
    let made = store.put_name("c", Found::default(), vec![object("c", "3", None, None)]);
    store.put_listing(["A"].into_iter(), begun);
    assert_eq!(find(&store, &vec![]), [kept, made].concat(), "one was made during the listing");
    assert!(store.object(gone[0]).is_ok());
    assert!(store.is_listed(Duration::from_secs(60)));
    assert!(!store.is_listed(Duration::ZERO));
    assert_eq!(store.last_found("b"), None);
}

#[test]
fn knowledge_is_fresh_missing_or_stale() {
    let (store, ttl) = (Store::new(vec![], 1), Duration::from_secs(60));
    assert_eq!(store.knowledge("a", ttl), Knowledge::Stale);
    store.put_missing("a");
    assert_eq!(store.knowledge("A", ttl), Knowledge::Missing);
    store.outdate("a");
    assert_eq!(store.knowledge("a", ttl), Knowledge::Stale);
    store.put_name("a", Found::default(), vec![]);
    assert!(matches!(store.knowledge("a", ttl), Knowledge::Fresh(_)));
    assert_eq!(store.knowledge("a", Duration::ZERO), Knowledge::Stale);
    assert!(store.last_found("a").is_some());
}

#[test]
fn session_objects_go_with_their_session_and_token_objects_stay() {
    let store = Store::new(vec![], 1);
    let token = store.put_name("a", Found::default(), vec![object("a", "1", None, None)]);
    let mine = store.add(object("a", "1", None, Some(7)));
    let other = store.add(object("a", "1", None, Some(8)));
    assert_eq!(find(&store, &labelled("a")), [token[0], mine, other]);
    store.remove_where(|object| object.owner == Some(7));
    assert_eq!(store.object(mine).unwrap_err().rv(), CKR_OBJECT_HANDLE_INVALID);
    assert_eq!(find(&store, &labelled("a")), [token[0], other]);
    store.remove_where(|_| true);
    assert_eq!(find(&store, &labelled("a")), token);
}

#[test]
fn a_search_needs_every_attribute_of_its_template() {
    let store = Store::new(vec![], 1);
    let a = store.add(object("a", "1", None, Some(1)));
    let b = store.add(object("a", "2", None, Some(1)));
    let id_and_label = vec![(CKA_LABEL, b"a".to_vec()), (CKA_ID, b"2".to_vec())];
    assert_eq!(find(&store, &id_and_label), [b]);
    assert_eq!(find(&store, &labelled("a")), [a, b]);
    assert_eq!(find(&store, &vec![(CKA_TOKEN, vec![1])]), [0; 0]);
    assert_eq!(store.find(&vec![], |object| object.attributes.bytes(CKA_ID) == Some(b"1")), [a]);
    store.replace(a, object("z", "1", None, Some(1))).unwrap();
    assert_eq!(find(&store, &labelled("z")), [a]);
    assert_eq!(find(&store, &labelled("a")), [b]);
    assert!(store.replace(99, object("z", "1", None, None)).is_err());
}

#[test]
fn a_copy_for_a_child_is_refused_while_the_lock_is_held() {
    let store = Store::new(vec![], 1);
    let handle = store.add(object("a", "1", None, Some(1)));
    assert!(store.carried_over().unwrap().object(handle).is_ok());
    let held = store.hold();
    assert!(store.carried_over().is_none());
    drop(held);
}
