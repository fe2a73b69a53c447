//! The golden vectors come from another implementation (Python's `cryptography`).

use super::super::prg::fill_ring;
use super::super::seal::{open, seal};
use super::*;

fn digest(name: &str) -> [u8; 32] {
    Sha256::digest(format!("{PROTOCOL}{name}")).into()
}

fn scalar(byte: u8) -> Secret {
    let mut bytes = [byte; 32];
    bytes[31] = 0;
    Secret::new(bytes)
}

fn pairs() -> [(StaticSecret, [u8; 32]); 2] {
    [1, 2].map(|byte| mask_key_pair(&scalar(byte)))
}

fn shared() -> Secret {
    let [(secret, _), (_, public)] = pairs();
    agree(&secret, &public).unwrap()
}

#[test]
fn mask_keys_are_golden() {
    assert_eq!(
        hex::encode(digest("roster-test")),
        "32adfc957e457357e054bd03fafc0bcb060f3509e6a9b3c845a7da6ed56eb8c7"
    );
    assert_eq!(
        hex::encode(digest("u2-test")),
        "ff39a5a9cd0b3396503835eef1026eae4a7428f8dd57a2f962e6a93cb5f76e76"
    );
    let [first, second] = pairs();
    assert_eq!(
        hex::encode(first.0.as_bytes()),
        "c7cfc7e9e74129205cf80b2501816ca63170622eb3cd1a7ac1f4320350635cf6"
    );
    assert_eq!(
        hex::encode(second.0.as_bytes()),
        "1f218ac844c69ca41d0d15e7d312138c7da1319d5d247895a777d36c778f121d"
    );
    assert_eq!(hex::encode(first.1), "957397e2ea33a3cc5e0af41137036f136e168c89fbbef46062dbd3d1191ac92a");
    assert_eq!(hex::encode(second.1), "bfbeb2a88f041d3f2042dc475186a421615842e52c90720c37d7c3d6fa228b6f");
}

#[test]
fn both_sides_agree_on_the_golden_secret() {
    let golden = "f1f1e21f6ea0376e3d4e32c4094fd618b4916d3e6e7f1cf78b2d93d20334821d";
    let [first, second] = pairs();
    for (secret, public) in [(&first.0, &second.1), (&second.0, &first.1)] {
        assert_eq!(hex::encode(agree(secret, public).unwrap().bytes()), golden);
    }
    let raw = Secret::new(*first.0.as_bytes());
    assert_eq!(public(&raw), first.1);
    assert_eq!(agree(&raw, &second.1), Some(shared()));
}

#[test]
fn masks_are_golden() {
    let t2 = digest("u2-test");
    let pair = pair_mask(&shared(), None, &t2, 0, 1);
    assert_eq!(hex::encode(pair.ring), "e18902958a4efefbd036a4ee4059febd");
    assert_eq!(hex::encode(self_mask(&scalar(1), &t2, 0).ring), "a6438a1665ff84e801a291a1c8841b19");

    let mut elements = [0; 8];
    fill_ring(&pair.ring, 0, &mut elements);
    assert_eq!(
        elements,
        [
            2_038_347_930,
            2_630_387_842,
            4_011_581_342,
            2_439_574_795,
            471_033_182,
            1_560_028_904,
            1_332_161_516,
            4_083_053_946
        ]
    );
    fill_ring(&pair.ring, 1_000_003, &mut elements[..1]);
    assert_eq!(elements[0], 976_867_389);
}

#[test]
fn a_sealed_share_is_golden() {
    let t1 = digest("roster-test");
    let key = share_key(&shared(), None, &t1, 0, 1);
    assert_eq!(hex::encode(key.bytes()), "fad793550c7589328c477bc124d4239408cb47da2c8bbaa3cb9473b764a3dfab");
    let sealed = seal(&key, &t1, 0, 1, &[1; 64]);
    assert_eq!(hex::encode(&sealed[..16]), "f00b6e04db23c26b02fd0c6a1f858eaf");
    assert_eq!(hex::encode(&sealed[64..]), "d99e1a2efb43198c0a191d6125f26e5b");
    assert_eq!(open(&key, &t1, 0, 1, &sealed).unwrap().as_slice(), [1; 64]);
}

#[test]
fn a_commitment_is_golden() {
    assert_eq!(
        hex::encode(commitment(&digest("u2-test"), &scalar(1))),
        "8a0ece3d899fed4138a022ad849d0644dff38a48f7d00ee50f2b34dc886ed8b2"
    );
}

#[test]
fn each_key_is_for_one_thing() {
    let (dh, kem, t) = (shared(), scalar(3), digest("u2-test"));
    let pair = pair_mask(&dh, None, &t, 0, 1);
    assert_eq!(pair, pair_mask(&dh, None, &t, 1, 0));
    assert_ne!(pair.ring, pair.wide);
    assert_ne!(pair, pair_mask(&dh, None, &t, 0, 2));
    assert_ne!(pair, pair_mask(&dh, Some(&kem), &t, 0, 1));
    assert_ne!(pair, pair_mask(&dh, None, &digest("other"), 0, 1));
    assert_ne!(self_mask(&dh, &t, 0), self_mask(&dh, &t, 1));
    assert_ne!(share_key(&dh, None, &t, 0, 1), share_key(&dh, None, &t, 1, 0));
    assert_ne!(share_key(&dh, None, &t, 0, 1), share_key(&dh, Some(&kem), &t, 0, 1));
    assert_ne!(commitment(&t, &dh), commitment(&digest("other"), &dh));
    assert_eq!(format!("{pair:?}"), "MaskKeys(..)");
}

#[test]
fn a_key_that_forces_the_result_is_refused() {
    let mut one = [0; 32];
    one[0] = 1;
    for small_order in [[0; 32], one] {
        assert_eq!(agree(&scalar(1), &small_order), None);
    }
}
