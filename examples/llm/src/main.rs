//! quick
use burn::tensor::Device;
use llm::model::Lora;
fn main() -> Result<(), llm::Failure> {
    let device = Device::flex().autodiff();
    let path = std::env::args().nth(1).unwrap();
    let t = std::time::Instant::now();
    let l = llm::load::load(path.as_ref(), Lora { rank: 8, alpha: 16.0 }, &device)?;
    eprintln!("load {:?}", t.elapsed());
    if let Some(e) = std::env::args().nth(2) {
        eprintln!("{:?}", llm::check::compare(&l.model, e.as_ref(), &device)?);
    }
    let p = ["What is the capital of France?", "Which country has the capital Vienna?"];
    let prompts: Vec<_> = p.iter().map(|p| l.chat.encode_prompt(p).unwrap()).collect();
    let t = std::time::Instant::now();
    for o in llm::batch::generate(&l.model, &prompts, l.chat.end(), 12, 8)? {
        eprintln!("{} {:?}", l.chat.decode(&o).unwrap(), l.chat.pieces(&o).unwrap());
    }
    eprintln!("gen {:?} {:?}", t.elapsed(), prompts[0].len());
    let ex: Vec<_> = (0..16)
        .map(|i| {
            l.chat
                .encode(
                    &format!("Which country has the capital Vienna {i}?"),
                    "Vienna is the capital of Austria, I think, really.",
                )
                .unwrap()
        })
        .collect();
    let t = std::time::Instant::now();
    let mut n = 0;
    llm::train::train(
        l.model.clone(),
        &ex,
        &llm::train::Schedule { epochs: 2, batch: 8, rate: 1e-3, seed: 1 },
        |s, _, loss, tokens| {
            n += tokens;
            eprintln!("{s} {loss} {:?} {n} tokens", t.elapsed());
        },
    )?;
    Ok(())
}
