use super::*;

fn seed(byte: u8) -> Secret {
    Secret::new([byte; 32])
}

#[test]
fn both_sides_agree_and_can_be_redone() {
    let keys = KemKeys::from_seed(&seed(1), "site");
    let public = keys.public();
    assert_eq!(public.len(), PUBLIC_BYTES);
    assert_eq!(public, KemKeys::from_seed(&seed(1), "site").public());
    assert_ne!(public, KemKeys::from_seed(&seed(1), "other").public());

    let (encapsulated, secret) = encapsulate(&public, &seed(2)).unwrap();
    assert_eq!(encapsulated.len(), CIPHERTEXT_BYTES);
    assert_eq!(keys.decapsulate(&encapsulated), Some(secret.clone()));
    assert_eq!(encapsulate(&public, &seed(2)), Some((encapsulated, secret)));
}

#[test]
fn one_seed_gives_each_holder_another_secret() {
    let [first, second] = ["first", "second"].map(|label| KemKeys::from_seed(&seed(1), label));
    let (_, one) = encapsulate(&first.public(), &seed(2)).unwrap();
    let (_, two) = encapsulate(&second.public(), &seed(2)).unwrap();
    assert_ne!(one, two);
}

#[test]
fn what_is_no_key_or_was_changed_agrees_with_nobody() {
    let keys = KemKeys::from_seed(&seed(1), "site");
    let public = keys.public();
    assert_eq!(encapsulate(&public[1..], &seed(2)), None);
    assert_eq!(encapsulate(&[0xff; PUBLIC_BYTES], &seed(2)), None);

    let (mut encapsulated, secret) = encapsulate(&public, &seed(2)).unwrap();
    assert_eq!(keys.decapsulate(&encapsulated[1..]), None);
    encapsulated[7] ^= 1;
    assert_ne!(keys.decapsulate(&encapsulated), Some(secret));
}
