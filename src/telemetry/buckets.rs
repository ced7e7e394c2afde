//! Upper bounds of the histograms, the reference's to the digit, so that dashboards can add up series of both pickers.

/// Seconds: whole requests.
pub const GEN: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0, 120.0, 180.0, 240.0, 300.0, 360.0, 480.0, 600.0, 900.0, 1200.0, 1800.0, 2700.0,
    3600.0,
];
/// Seconds: time to the first token.
pub const TTFT: &[f64] = &[
    0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0,
    20.0, 30.0, 45.0, 60.0, 120.0,
];
/// Seconds: time per output token.
pub const TPOT: &[f64] = &[
    0.0005, 0.00205, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.125, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8,
    1.0, 2.0,
];
/// Seconds: between two tokens.
pub const ITL: &[f64] =
    &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0];
/// Seconds: request duration over output tokens.
pub const NTPOT: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
/// Seconds: what happens inside the picker.
pub const FAST: &[f64] = &[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];
/// Seconds: the picker's part of the request path.
pub const REQPROC: &[f64] =
    &[0.0005, 0.001, 0.002, 0.005, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds: the picker's part of the response path.
pub const RESPPROC: &[f64] =
    &[0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Seconds: life of an ext_proc stream.
pub const EXTPROC: &[f64] =
    &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];
/// Bytes: request bodies, powers of two from 64 B to 1 GiB.
pub const REQSZ: &[f64] = &{
    let mut bounds = [0.0; 25];
    let mut i = 0;
    while i < 25 {
        bounds[i] = (64_u64 << i) as f64;
        i += 1;
    }
    bounds
};
/// Bytes: response bodies. 32778 is an old slip for 32768 that dashboards and golden texts depend on.
pub const RESPSZ: &[f64] = &[
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32778.0,
    65536.0,
];
/// Tokens: prompts; with the same slip.
pub const INTOK: &[f64] = &[
    1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32778.0,
    65536.0, 131072.0, 262144.0, 524288.0, 1048576.0,
];
/// Tokens: answers.
pub const OUTTOK: &[f64] = &[1.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0];
/// A share of one.
pub const RATIO: &[f64] = &[0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];
/// Bytes: predicted prefix hits.
pub const HITBYTES: &[f64] =
    &[0.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0, 65536.0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_rise_and_have_the_reference_ends() {
        for set in
            [GEN, TTFT, TPOT, ITL, NTPOT, FAST, REQPROC, RESPPROC, EXTPROC, REQSZ, RESPSZ, INTOK, OUTTOK]
        {
            assert!(set.windows(2).all(|w| w[0] < w[1]), "{set:?}");
        }
        assert_eq!(&GEN[..TTFT.len()], TTFT);
        assert_eq!((REQSZ[0], REQSZ[24]), (64.0, 1_073_741_824.0));
        assert!(RESPSZ.contains(&32778.0) && INTOK.contains(&32778.0) && !OUTTOK.contains(&32778.0));
    }
}
